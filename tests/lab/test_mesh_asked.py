"""What an operator asks for and gets wrong: policies, `down`, `rekey`, `wait`, `status`, broken files."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from lab import CommandFailed, Host, Mesh, by_hand, mesh, wait_until
from lab.asking import Journal, everyone_up, full, names, pair_spis, plan, status, view
from lab.mesh import address_pairs
from tests.lab.watching import changed_over

TIMED_OUT = 4
INVALID = 2


@pytest.mark.parametrize("policy", ["require", "prefer"])
def test_clear_text_while_down_as_the_policy_says(policy: str) -> None:
    with mesh(2, ipv6=1, policy=policy) as lab:
        one, other = lab
        one.start_charon()
        one.start_swanmesh()
        wait_until(lambda: len(names(one, other)) == 2, 20, "the connections are loaded")
        capture = other.capture()
        answered = [
            sender.ping(receiver, 5, 0.2).received
            for sender, receiver in (
                (one, other.ipv4()),
                (one, other.ipv6()),
                (other, one.ipv4()),
                (other, one.ipv6()),
            )
        ]
        leaked = [packet for packet in capture.clear if packet.source in one.addresses]
        if policy == "prefer":
            assert answered == [5, 5, 5, 5]
            assert len(leaked) == 20
        else:
            assert answered == [0, 0, 0, 0]
            assert leaked == []
        assert view(one, other)["state"] in ("connecting", "down")

        lab[1].start_charon()
        lab[1].start_swanmesh()
        lab.wait_until_full()
        wait_until(lambda: changed_over(one) and changed_over(other), 60, "both have changed over")
        capture = other.capture()
        assert one.ping(other.ipv4()).lost == other.ping(one.ipv6()).lost == 0
        assert capture.clear == []


@pytest.mark.parametrize("policy", ["require", "prefer"])
def test_down_stays_down_until_up_also_across_a_restart(policy: str) -> None:
    with mesh(3, policy=policy) as lab:
        full(lab)
        one, other, third = lab
        before = pair_spis(one, third)
        passes = policy == "prefer"

        def closed() -> None:
            wait_until(lambda: not pair_spis(one, other), 20, "the association is ended")
            wait_until(lambda: view(one, other)["state"] == "disabled", 20, "it is shown as disabled")
            capture = one.capture()
            # Where it is closed, already connect(2) fails: EPERM.
            sent = one.exec("ping", "-n", "-c", "5", "-i", "0.05", other.addresses[0], check=False)
            assert (sent.returncode == 0) == passes, sent.stdout
            received = other.ping(one, 5).received
            clear = [packet for packet in capture.clear if packet.source in one.addresses]
            assert received == (5 if passes else 0)
            assert bool(clear) == passes
            assert not pair_spis(one, other)

        one.swanmesh("down", other.name, "--wait", timeout=90)
        closed()
        assert one.swanmesh("wait", "--timeout", "1", check=False).returncode == TIMED_OUT
        one.kill_swanmesh(signal.SIGKILL)
        one.start_swanmesh()
        closed()
        assert plan(one) == []
        one.swanmesh("up", other.name, "--wait", timeout=90)
        one.swanmesh("wait", other.name, "--timeout", "60", timeout=90)
        lab.wait_until_full()
        assert one.ping(other).lost == 0
        assert pair_spis(one, third) == before


def test_charon_not_there_at_the_start() -> None:
    with mesh(2) as lab:
        lab[1].start_charon()
        lab.start_controllers()
        one, other = lab
        said = wait_until(lambda: status(one)["charon"]["reason"], 10, "the reason is told")
        assert status(one)["charon"]["reachable"] is False
        assert "charon.vici" in said
        assert view(one, other)["state"] == "down"
        assert "charon is not reachable" in view(one, other)["reason"]
        waited = one.swanmesh("wait", "--timeout", "1", check=False)
        assert waited.returncode == TIMED_OUT
        assert "charon" in waited.stderr
        one.start_charon()
        one.swanmesh("wait", "--timeout", "60", timeout=90)
        lab.wait_until_full()


def test_what_is_wrong_with_one_peer_holds_up_no_other_and_is_its_reason() -> None:
    """h2 does not know h1, and h3 shows a certificate of another name's."""
    with mesh(4) as lab:
        one, stranger, impostor, good = lab
        (stranger.peers / f"{one.name}.yaml").unlink()
        lab.authority.issue(
            "elsewhere.mesh.example",
            ["203.0.113.99"],
            certificate=impostor.folder / "host.pem",
            private_key=impostor.folder / "host.key",
        )
        lab.start_charons()
        for host in (one, stranger, good):
            host.launch_swanmesh()
        by_hand.load_connections(impostor, [one], "none")
        for host in (one, stranger, good):
            host.await_swanmesh()
        one.swanmesh("wait", good.name, "--timeout", "60", timeout=90)
        assert one.ping(good).lost == 0

        one.swanmesh("up", stranger.name, check=False)
        one.swanmesh("up", impostor.name, check=False)
        reason = wait_until(lambda: _failed(one, stranger), 90, "the stranger's refusal is told")
        assert "no matching connection at the peer" in reason
        reason = wait_until(lambda: _failed(one, impostor), 90, "the impostor's refusal is told")
        assert "authentication" in reason
        assert view(one, good)["state"] == "up"
        assert one.swanmesh("wait", good.name, "--timeout", "1").returncode == 0


def _failed(host: Host, other: Host) -> str:
    """Why an attempt of `host`'s to bring up `other` failed; empty if none has yet."""
    shown = view(host, other)
    return str(shown["reason"]) if shown["pairs"][0]["attempts"] else ""


def test_add_peer_that_waits() -> None:
    with mesh(1, spare=2) as lab:
        one, other, absent = lab
        one.start_charon()
        one.start_swanmesh()
        other.start_charon()
        other.start_swanmesh()
        other.swanmesh("add-peer", one.name, *one.addresses)
        done = one.swanmesh("add-peer", other.name, *other.addresses, "--wait", "60", timeout=90)
        assert f"{other.name}: added" in done.stdout
        assert pair_spis(one, other)
        assert one.ping(other).lost == 0
        late = one.swanmesh("add-peer", absent.name, *absent.addresses, "--wait", "2", check=False)
        assert late.returncode == TIMED_OUT
        assert absent.name in late.stderr
        same = one.swanmesh("add-peer", other.name, *other.addresses)
        assert "added" not in same.stdout


def test_a_command_for_a_peer_that_is_not_there_is_an_error() -> None:
    with mesh(1) as lab:
        lab[0].start_swanmesh()
        with pytest.raises(CommandFailed, match=r"h9\.mesh\.example"):
            lab[0].swanmesh("down", "h9.mesh.example")
        reply = lab[0].swanmesh("status", "--json").stdout
        assert json.loads(reply)["peers"] == []


@pytest.fixture(scope="module")
def lab() -> Iterator[Mesh]:
    """Three hosts of both families in full mesh. Whoever needs another mesh comes before this one is made."""
    with mesh(3, ipv6=1, initiation={"resync": "2s"}) as made:
        yield full(made)


def test_status_of_a_mesh_that_is_up(lab: Mesh) -> None:
    everyone_up(lab.hosts)
    assert lab[0].ping(lab[1], 10, 0.02).lost == 0
    for host in lab:
        shown = json.loads(host.swanmesh("status", "--json").stdout)
        assert shown["schema"] == 1
        assert shown["problems"] == []
        assert shown["host"]["name"] == host.name
        assert shown["host"]["addresses"] == list(host.addresses)
        assert shown["charon"]["reachable"] is True
        assert shown["charon"]["version"]
        others = [other for other in lab if other is not host]
        assert [peer["name"] for peer in shown["peers"]] == [other.name for other in others]
        for peer, other in zip(shown["peers"], others, strict=True):
            assert (peer["state"], peer["reason"], peer["next_attempt"]) == ("up", "", None)
            assert (peer["policy"], peer["addresses"]) == ("require", list(other.addresses))
            assert shown["host"]["started"] < peer["since"] < shown["host"]["started"] + 3600
            pairs = {(a["local"], a["remote"]) for a in peer["associations"]}
            assert pairs == set(address_pairs(host, other))
            told = {spi for a in peer["associations"] for spi in (a["spi_in"], a["spi_out"])}
            assert told == {spi for _, _, spi in pair_spis(host, other)}
            for association in peer["associations"]:
                assert (association["state"], association["mode"]) == ("INSTALLED", "TRANSPORT")
                assert association["esp_algorithm"].startswith("AES_GCM_16-128")
                assert association["ike_algorithm"].startswith("AES_GCM_16-128")
    wait_until(
        lambda: sum(a["packets_in"] for a in view(lab[0], lab[1])["associations"]) >= 10,
        20,
        "the counters of the next look show the pings",
    )


def test_a_rekey_asked_for_loses_nothing_and_is_no_down(lab: Mesh) -> None:
    one, other, _ = lab
    before = pair_spis(one, other)

    def ikes_with_other() -> set[str]:
        return {sa["uniqueid"] for sa in one.sas() if sa["remote-host"] in other.addresses}

    ikes = ikes_with_other()
    journals = [Journal(host) for host in lab]
    stream = one.ping_stream(other.addresses[0])
    capture = lab.capture()
    one.swanmesh("rekey", other.name, "--wait", timeout=90)

    def rekeyed() -> bool:
        return not before & pair_spis(one, other) and not ikes & ikes_with_other()

    wait_until(rekeyed, 30, "the IKE_SA and the CHILD_SA are new ones and the old ones gone")
    lab.wait_until_full()
    assert one.ping(other, 100, 0.01).lost == 0
    result = stream.stop()
    assert result.lost == 0, result
    assert capture.clear == []
    for journal in journals:
        assert journal.lines("peer-up", "peer-down", "initiate", "terminate") == []
    assert view(one, other)["state"] == view(other, one)["state"] == "up"


def test_a_broken_file_leaves_the_last_good_state_in_force(lab: Mesh) -> None:
    one, other, _ = lab
    file = one.peers / f"{other.name}.yaml"
    good = file.read_text()
    before = pair_spis(one, other)
    stream = one.ping_stream(other.addresses[0])
    file.write_text("name: [never closed\n")

    def told() -> bool:
        return any(file.name in problem for problem in status(one)["problems"])

    wait_until(told, 20, "status tells of the broken file")
    checked = one.swanmesh("check", check=False)
    assert checked.returncode == INVALID
    assert file.name in checked.stderr
    one.kill_swanmesh(signal.SIGKILL)
    one.start_swanmesh()
    wait_until(lambda: status(one)["charon"]["reachable"], 20, "charon was looked at")
    wait_until(told, 20, "status tells of it after a restart, too")
    assert one.ping(other, 100, 0.01).lost == 0
    assert pair_spis(one, other) == before and names(one, other)

    file.write_text(good)
    wait_until(lambda: status(one)["problems"] == [], 20, "nothing is wrong any more")
    one.swanmesh("wait", other.name, "--timeout", "30", timeout=60)
    assert one.swanmesh("check").returncode == 0
    assert stream.stop().lost == 0
    assert pair_spis(one, other) == before
    assert plan(one) == []
