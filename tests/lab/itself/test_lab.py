"""The lab itself: what it breaks is broken, what it shows is there, and its checks can fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import CommandFailed, Host, Mesh, by_hand, mesh, namespaces, starving, wait_until
from lab.mesh import ROOM, clean_up


@pytest.fixture
def cable() -> Iterator[Mesh]:
    """Two hosts without any IPsec."""
    with mesh(2, ipv6=1) as lab:
        yield lab


@pytest.fixture
def trio() -> Iterator[Mesh]:
    """Three hosts in full mesh by connections that were written by hand."""
    with mesh(3, ipv6=1) as lab:
        lab.start_charons()
        for host in lab:
            by_hand.load_connections(host, [other for other in lab if other is not host])
        for index, host in enumerate(lab):
            for other in lab.hosts[index + 1 :]:
                for pair in range(2):
                    by_hand.initiate(host, f"{other.short}-{pair}")
        lab.wait_until_full(30)
        yield lab


def test_esp_on_the_wire_and_nothing_else(trio: Mesh) -> None:
    captures = [host.capture() for host in trio]
    assert trio[0].ping(trio[1], 5).lost == 0
    assert trio[2].ping(trio[0].ipv6(), 5).lost == 0
    for capture, least in zip(captures, (20, 10, 10), strict=True):
        assert len(capture.esp) >= least
        assert capture.clear == []
    assert all(state.transport and "gcm" in state.algorithm for state in trio[0].xfrm_states())
    assert len(trio[0].spis()) == 8


def test_kernel_and_charon_tell_the_same_spis(trio: Mesh) -> None:
    for host in trio:
        children = [child for sa in host.sas() for child in sa["child-sas"].values()]
        told = {child["spi-in"] for child in children} | {child["spi-out"] for child in children}
        assert told == {spi for _, _, spi in host.spis()}


def test_a_missing_association_is_a_fault_at_both_ends(trio: Mesh) -> None:
    assert list(trio.faults()) == []
    with trio[2].vici() as session:
        list(session.terminate({"ike": "h1-0"}))
    assert sorted(trio.faults()) == [
        "h1 to h3, 192.0.2.1 to 192.0.2.3: 0 IKE_SAs (none)",
        "h3 to h1, 192.0.2.3 to 192.0.2.1: 0 IKE_SAs (none)",
    ]


def test_two_ends_that_initiate_at_once_leave_a_duplicate_that_is_a_fault() -> None:
    with mesh(2) as lab:
        lab.start_charons()
        by_hand.load_connections(lab[0], [lab[1]], "none")
        by_hand.load_connections(lab[1], [lab[0]], "none")
        lab[0].link.delay(100)  # so that the two requests are sure to cross
        by_hand.initiate(lab[0], "h2-0")
        by_hand.initiate(lab[1], "h1-0")
        duplicate = "2 IKE_SAs (ESTABLISHED, ESTABLISHED)"
        wait_until(lambda: any(duplicate in fault for fault in lab.faults()), 10, "a duplicate is seen")


def test_a_capture_sees_clear_text(cable: Mesh) -> None:
    capture = cable[1].capture()
    assert cable[0].ping(cable[1], 5).lost == 0
    assert cable[0].ping(cable[1].ipv6(), 5).lost == 0
    assert len([packet for packet in capture.clear if packet.protocol == 1]) == 10
    assert len([packet for packet in capture.clear if packet.protocol == 58]) == 10
    assert capture.esp == []


@pytest.mark.parametrize("direction", ["both", "in", "out"])
def test_a_cut_link_carries_nothing_and_a_restored_one_all(cable: Mesh, direction: str) -> None:
    link = cable[1].link
    assert cable[0].ping(cable[1]).lost == 0
    link.cut(direction)  # type: ignore[arg-type]
    stream = cable[0].ping_stream(cable[1].ipv4())
    assert cable[0].ping(cable[1], 3).received == 0
    result = stream.stop()
    assert result.received == 0 and result.lost == result.sent > 0
    link.restore()
    # Not at once: a question for the neighbour's Ethernet address may just have been lost.
    wait_until(lambda: cable[0].ping(cable[1], 3).lost == 0, 10, "the restored link carries again")


def test_a_link_cut_one_way_still_carries_the_other(cable: Mesh) -> None:
    # The neighbour's Ethernet address must be known, for the question cannot be answered later.
    assert cable[0].ping(cable[1]).lost == 0
    cable[0].link.cut("in")
    capture = cable[1].capture()
    assert cable[0].ping(cable[1], 3).received == 0
    kinds = {(packet.source, packet.protocol) for packet in capture.clear}
    assert kinds == {(cable[0].ipv4(), 1), (cable[1].ipv4(), 1)}


def test_loss_really_loses_and_delay_delays(cable: Mesh) -> None:
    link = cable[1].link
    link.loss(30)
    assert 20 < cable[0].ping(cable[1], 200, 0.002).lost < 180
    link.restore()
    assert cable[0].ping(cable[1], 50, 0.002).lost == 0
    link.delay(40)
    said = cable[0].exec("ping", "-c", "3", "-i", "0.2", cable[1].ipv4()).stdout
    fastest = float(said.rpartition(" = ")[2].partition("/")[0])
    assert fastest >= 80


def test_dropping_ike_leaves_esp_and_the_reverse(trio: Mesh) -> None:
    link = trio[1].link
    link.drop("ike")
    assert trio[0].ping(trio[1]).lost == 0
    with trio[0].vici() as session:
        list(session.rekey({"ike": "h2-0"}))
    capture = trio[1].capture()
    wait_until(
        lambda: any("REKEY" in task for sa in trio[0].sas() for task in sa.get("tasks-active", [])),
        5,
        "the rekey waits for an answer",
    )
    assert not [packet for packet in capture.of_kind("ike") if packet.source == trio[1].ipv4()]
    link.restore()
    link.drop("esp")
    assert trio[0].ping(trio[1]).received == 0
    assert trio[0].ping(trio[1].ipv6()).received == 0
    link.restore()
    assert trio[0].ping(trio[1]).lost == 0


def test_a_command_that_fails_is_an_error_with_its_words(cable: Mesh) -> None:
    with pytest.raises(CommandFailed, match=r"h1: .* status 2\n.*nonsense"):
        cable[0].exec("ls", "/nonsense")
    assert cable[0].exec("false", check=False).returncode == 1


@pytest.mark.parametrize("way", [starving.Group, starving.DutyCycle])
def test_a_starved_host_does_a_part_of_the_work(
    cable: Mesh, monkeypatch: pytest.MonkeyPatch, way: type[starving.Diet]
) -> None:
    monkeypatch.setattr(starving, "diet", way)
    starved, other = cable
    with starved.starved(0.1):
        slow, fast = work(starved), work(other)
    assert slow < fast / 2
    assert work(starved) > 2 * slow


def work(host: Host) -> int:
    """What a process of the host's gets done in two seconds by the clock; it runs alone."""
    script = "import time; n = 0; end = time.monotonic() + 2\nwhile time.monotonic() < end: n += 1\nprint(n)"
    return int(host.exec(sys.executable, "-c", script).stdout)


def test_left_overs_of_a_crashed_run_are_removed() -> None:
    clean_up()
    space = namespaces.create(["crashed"])[0]
    with space.entered():
        command = ("sleep", "600")
        sleeper = subprocess.Popen(command)
    ROOM.mkdir()
    (ROOM / "left").touch()
    with mesh(1) as lab:
        assert sleeper.wait(timeout=5) == -signal.SIGKILL
        assert not space.path.exists()
        assert not (ROOM / "left").exists()
        lab[0].start_charon()
        pid = lab[0].charon_pid
    assert not Path(f"/proc/{pid}").exists()
    assert namespaces.left_over() == []
    assert not ROOM.exists()


def test_a_failure_keeps_what_each_host_was_doing() -> None:
    with pytest.raises(ValueError) as caught, mesh(2) as lab:
        lab[0].start_charon()
        raise ValueError("on purpose")
    folder = Path(caught.value.__notes__[0].rpartition(": ")[2])
    assert folder.is_relative_to(os.environ["LAB_OUT"])
    assert "loaded plugins" in (folder / "h1/charon.log").read_text()
    assert (folder / "h1/list-sas.json").read_text() == "[]"
    assert (folder / "h2/list-sas.json.error").exists()
    assert not (folder / "h1/host.key").exists()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_waiting_says_what_was_seen_last() -> None:
    with pytest.raises(TimeoutError, match=r"until the sky is green; last seen: \[\]"):
        wait_until(list, 0.1, "the sky is green")
