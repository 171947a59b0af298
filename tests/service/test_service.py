"""The whole service: the real daemon, files and control socket, and a charon that can be made to fail."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swanmesh.control import listener
from swanmesh.control.server import ControlServer
from swanmesh.core.reasons import STATUS_ASKED, Reason
from swanmesh.core.xfrm import Module, Segmenting
from swanmesh.kernel.link import KernelLink
from tests.charon.daemon import Initiation
from tests.charon.fake import Fault
from tests.charon.helpers import asynchronous
from tests.service.running import Listener, Place, all_up, asked, peer, service, status, until


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for number in (2, 3, 4):
        place.write_peer(f"web{number}.mesh.example", f"192.0.2.{number}")
    return place


@asynchronous
async def test_from_files_to_associations(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        reply = await status(place)
        assert [p.state for p in reply.peers] == ["up"] * 3
        assert all(len(p.associations) == 1 and p.associations[0].mode == "TRANSPORT" for p in reply.peers)
        assert (await asked(place.client.plan)).actions == []
        assert (await asked(lambda: place.client.wait([], 5))).missing == {}
    await place.charon.stop()


@asynchronous
async def test_charon_gets_its_connections_before_the_control_socket_answers(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What answers there takes longer to import than all else; who calls meanwhile waits, and is answered."""
    answers = asyncio.Event()
    start = ControlServer.start

    async def late(server: ControlServer, made: listener.Listener | None = None) -> None:
        await answers.wait()
        await start(server, made)

    monkeypatch.setattr(ControlServer, "start", late)
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        asked_early = asyncio.create_task(status(place))
        answers.set()
        assert [p.state for p in (await asked_early).peers] == ["up"] * 3
    await place.charon.stop()


@asynchronous
async def test_stopped_and_started_again_it_changes_nothing(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
    held, loads = dict(place.charon.sas), place.loads()
    place.charon.requests.clear()
    async with service(place) as daemon:
        await all_up(place, daemon)
        assert daemon.counters.actions == {}
    assert place.charon.sas == held
    assert loads and not place.loads()
    changing = {"load-conn", "unload-conn", "initiate", "terminate", "rekey", "load-key", "load-cert"}
    assert changing.isdisjoint(command for command, _ in place.charon.requests)
    await place.charon.stop()


@asynchronous
async def test_a_fault_of_ours_is_survived_and_the_state_made_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        step, failing = daemon.mesh.step, [True]

        def faulty(now: float) -> object:
            made = step(now)
            if failing and made.actions:
                failing.clear()
                raise AssertionError("a mistake in the middle of a decision")
            return made

        monkeypatch.setattr(daemon.mesh, "step", faulty)
        await until(daemon, lambda: not failing, 15)
        await all_up(place, daemon)
        assert daemon.counters.faults == 1
    await place.charon.stop()


@asynchronous
async def test_a_charon_that_is_not_there_is_waited_for(place: Place) -> None:
    async with service(place) as daemon:
        await until(daemon, lambda: "no socket" in daemon.mesh.state.charon.reason.words)
        reply = await status(place)
        assert not reply.charon.reachable
        assert "no socket" in peer(reply, "web2.mesh.example").reason
        assert "charon" in (await asked(lambda: place.client.wait([], 0.1))).missing
        await place.charon.start()
        await all_up(place, daemon)
    await place.charon.stop()


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.HALF_FRAME, Fault.GARBAGE, Fault.CLOSE, Fault.FLOOD])
def test_whatever_charon_does_status_is_answered_and_all_comes_back(place: Place, fault: Fault) -> None:
    @asynchronous
    async def run() -> None:
        await place.charon.start()
        async with service(place) as daemon:
            await all_up(place, daemon)
            held = dict(place.charon.sas)
            place.charon.fault, place.charon.fault_on = fault, "list-sas"
            daemon.look(Reason("test", "the test says so"))
            lost = daemon.counters.charon_lost
            if fault is not Fault.FLOOD:
                await until(daemon, lambda: daemon.counters.charon_lost > lost)
            assert (await status(place)).peers
            await until(daemon, lambda: daemon.mesh.state.charon.reachable)
            await all_up(place, daemon)
            assert place.charon.sas == held
        await place.charon.stop()

    run()


@asynchronous
async def test_charon_restarted_all_is_loaded_and_brought_up_again(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        heard = Listener(daemon)
        await place.charon.stop()
        await until(daemon, lambda: not daemon.mesh.state.charon.reachable)
        await place.charon.start()
        await until(daemon, lambda: "charon-back" in heard.kinds())
        await all_up(place, daemon)
        await until(daemon, lambda: heard.kinds().count("peer-up") == 3)
        assert heard.kinds()[0] == "charon-lost"
        assert heard.kinds().count("peer-down") == 3
    await place.charon.stop()


@asynchronous
async def test_the_last_good_state_stays_in_force(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        held = dict(place.charon.sas)
        (place.peers / "web2.mesh.example.yaml").write_text("name: [")
        place.config.write_text("host: {nmae: x}\n")
        await until(daemon, lambda: len(daemon.problems()) >= 2)
        problems = "\n".join((await status(place)).problems)
        assert "web2.mesh.example.yaml" in problems
        assert "nmae" in problems
        assert place.charon.sas == held
        place.write_config()
        place.write_peer("web2.mesh.example", "192.0.2.22")
        await until(daemon, lambda: not daemon.problems())
        await all_up(place, daemon)
        addresses = {sa.connection for sa in place.charon.sas.values()}
        assert len(addresses) == 3
    await place.charon.stop()


@asynchronous
async def test_a_file_that_cannot_be_read_at_the_start_removes_no_peer(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
    held = dict(place.charon.sas)
    path = place.peers / "web2.mesh.example.yaml"
    good = path.read_text()
    path.write_text("{")
    async with service(place) as daemon:
        await until(daemon, lambda: daemon.mesh.state.observed_once)
        await until(daemon, lambda: len(daemon.mesh.state.up) == 2)
        assert (await asked(place.client.plan)).actions == []
        assert place.charon.sas == held
        path.write_text(good)
        await until(daemon, lambda: len(daemon.mesh.state.up) == 3)
        assert place.charon.sas == held
        path.unlink()
        await until(daemon, lambda: len(place.charon.connections) == 2)
        await until(daemon, lambda: len(place.charon.sas) == 2)
    await place.charon.stop()


@asynchronous
async def test_what_is_not_ours_is_never_touched(place: Place) -> None:
    await place.charon.start()
    foreign = {"version": "2", "children": {"net": {"start_action": "trap"}}}
    place.charon.connections["swanmesh-by-hand"] = foreign
    place.charon.connections["office"] = foreign
    async with service(place) as daemon:
        await all_up(place, daemon)
        for path in place.peers.iterdir():
            path.unlink()
        await until(daemon, lambda: set(place.charon.connections) == {"swanmesh-by-hand", "office"})
    await place.charon.stop()


@asynchronous
async def test_signals(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        reloads = daemon.counters.reloads
        os.kill(os.getpid(), signal.SIGHUP)
        await until(daemon, lambda: daemon.counters.reloads > reloads)
        held = dict(place.charon.sas)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(daemon, lambda: not (place.folder / "control.sock").exists())
        assert place.charon.sas == held
    await place.charon.stop()


@asynchronous
async def test_an_error_on_one_peer_holds_up_no_other_and_is_its_reason(place: Place) -> None:
    await place.charon.start()
    place.charon.refuse = lambda name: "192.0.2.3 is cursed" if "web3" in name else ""
    async with service(place) as daemon:
        await until(daemon, lambda: len(daemon.mesh.state.up) == 2)
        refused = peer(await status(place), "web3.mesh.example")
        assert refused.state != "up"
        assert "cursed" in refused.reason
    await place.charon.stop()


@asynchronous
async def test_a_kernel_that_cannot_be_watched_is_a_problem_that_status_shows(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> socket.socket:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("swanmesh.service.daemon.KernelLink", functools.partial(KernelLink, opener=refused))
    await place.charon.start()
    async with service(place, watch_kernel=True) as daemon:
        await until(daemon, lambda: "CAP_NET_ADMIN" in daemon.mesh.state.kernel.reason)
        assert any("not watched" in problem for problem in (await status(place)).problems)
    await place.charon.stop()


@asynchronous
async def test_what_charon_tells_and_nobody_understands_is_counted(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        assert b"swanmesh_charon_events_lost_total 0.0" in await asked(place.client.metrics)
        place.charon.emit_raw("ike-updown", b"\x03\x05group")
        await until(daemon, lambda: daemon.events_lost == 1)
        assert b"swanmesh_charon_events_lost_total 1.0" in await asked(place.client.metrics)
    await place.charon.stop()


@asynchronous
async def test_a_proposal_that_charon_cannot_do_is_told_of_and_another_is_taken(place: Place) -> None:
    future, plain = "aes128gcm16-prfsha256-x25519-ke1_mlkem768", "aes128gcm16-prfsha256-x25519"
    place.document["connection"] = {"ike_proposals": [future, plain]}
    place.write_config()
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        (problem,) = (await status(place)).problems
        assert "connection.ike_proposals[0]" in problem and "ML_KEM_768" in problem
        assert [body["proposals"] for body in place.charon.connections.values()] == [[plain.encode()]] * 3
    await place.charon.stop()


@asynchronous
async def test_what_swanctl_unloads_is_loaded_again_before_charon_is_looked_at(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        held = dict(place.charon.connections)
        place.charon.requests.clear()
        for name in held:
            place.charon.unload(name)
        await until(daemon, lambda: place.charon.connections == held)
        commands = [command for command, _ in place.charon.requests]
        # What the peers showed as they came up may still be asked for.
        assert set(commands[: commands.index("load-conn")]) <= {"list-certs"}
    await place.charon.stop()


@asynchronous
async def test_an_emptied_folder_is_held_told_and_confirmed(place: Place) -> None:
    await place.charon.start()
    for number in range(10, 16):
        place.write_peer(f"web{number}.mesh.example", f"192.0.2.{number}")
    async with service(place) as daemon:
        await all_up(place, daemon)
        held = dict(place.charon.sas)
        listener = Listener(daemon)
        files = {path: path.read_text() for path in place.peers.iterdir()}
        for path in files:
            path.unlink()
        await until(daemon, lambda: "removal-held" in listener.kinds())
        problems = "\n".join((await status(place)).problems)
        assert f"{len(files)} peers are gone" in problems
        assert "swanmesh confirm removal" in problems
        assert f"swanmesh_removals_held {len(files)}.0".encode() in await asked(place.client.metrics)
        assert place.charon.sas == held
        for path, text in files.items():
            path.write_text(text)
        await until(daemon, lambda: not daemon.problems())
        assert place.charon.sas == held
        for path in files:
            path.unlink()
        await until(daemon, lambda: bool(daemon.problems()))
        assert len((await asked(lambda: place.client.confirm("removal"))).peers) == len(files)
        await until(daemon, lambda: not place.charon.connections)
    await place.charon.stop()


@asynchronous
async def test_down_is_told_as_done_when_it_is_and_not_when_it_was_asked(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        place.charon.fault, place.charon.fault_on = Fault.HANG, "load-conn"
        reply = await asked(lambda: place.client.command("down", ["web2"], wait=0.3))
        assert reply.done == {}
        assert list(reply.waiting) == ["web2.mesh.example"]
        shown = peer(await status(place), "web2.mesh.example")
        assert shown.state != "disabled" and shown.associations
        # charon hangs, is lost, and answers again; only then it can be so.
        reply = await asked(lambda: place.client.command("down", ["192.0.2.2"], wait=20))
        assert reply.waiting == {}
        assert list(reply.done) == ["web2.mesh.example"]
        shown = peer(await status(place), "web2.mesh.example")
        assert (shown.state, shown.reason_code, shown.associations) == ("disabled", "held-down", [])
        assert len(place.charon.sas) == 2
        assert (await asked(lambda: place.client.command("up", ["web2"], wait=20))).waiting == {}
        assert len(place.charon.sas) == 3
    await place.charon.stop()


@asynchronous
async def test_removals_on_purpose_are_not_held_though_the_watch_sees_them_first(place: Place) -> None:
    await place.charon.start()
    for number in range(10, 16):
        place.write_peer(f"web{number}.mesh.example", f"192.0.2.{number}")
    async with service(place) as daemon:
        await all_up(place, daemon)
        files = list(place.peers.iterdir())
        for path in files:
            path.unlink()
        await until(daemon, lambda: bool(daemon.problems()))
        await asked(lambda: place.client.reload(files, removed=True))
        assert daemon.problems() == []
        await until(daemon, lambda: not place.charon.connections)
    await place.charon.stop()


@asynchronous
async def test_a_command_without_a_charon_says_that_it_is_not_done(place: Place) -> None:
    async with service(place) as daemon:
        await until(daemon, lambda: "no socket" in daemon.mesh.state.charon.reason.words)
        for command in ("up", "down", "rekey"):
            reply = await asked(lambda: place.client.command(command, ["web2", "web3"], wait=0.1))  # noqa: B023
            assert reply.done == {}
            assert all("charon is not reachable" in why for why in reply.waiting.values())
            assert len(reply.waiting) == 2


@asynchronous
async def test_a_rekey_is_done_when_the_keys_are_new(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        (before,) = peer(await status(place), "web2.mesh.example").associations
        reply = await asked(lambda: place.client.command("rekey", ["web2"], wait=20))
        assert (reply.done, reply.waiting) == ({"web2.mesh.example": "has new keys"}, {})
        (after,) = peer(await status(place), "web2.mesh.example").associations
        assert after.spi_in != before.spi_in
        assert after.ike_id != before.ike_id
    await place.charon.stop()


@asynchronous
async def test_a_rekey_of_nobody_in_particular_is_one_of_all_that_are_up(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        before = {p.name: p.associations[0].spi_in for p in (await status(place)).peers}
        reply = await asked(lambda: place.client.command("rekey", []))
        assert (reply.done, reply.waiting) == ({}, {})
        assert f"rekeying {len(before)} peers" in reply.spread

        def new(name: str) -> bool:
            sas = [sa for pair in daemon.mesh.state.pairs.of(name) for sa in pair.sas.values()]
            spis = [child.spi_in for sa in sas for child in sa.children]
            return bool(spis) and before[name] not in spis

        await until(daemon, lambda: all(new(name) for name in before), 20)
    await place.charon.stop()


@asynchronous
async def test_status_tells_which_association_does_without_segmentation_and_what_to_do(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        later = int(time.time()) + 60
        daemon.mesh.state.kernel.segmenting = (Segmenting(4, Module.LOADED, 4, 2, later),)
        await asked(lambda: place.client.status(["web2"], fresh=True))
        reply = await status(place)
        (association,) = peer(reply, "web2.mesh.example").associations
        assert "made before esp4_offload came" in association.segmentation
        assert reply.data_path == "esp4_offload loaded"
        (problem,) = reply.data_path_problems
        assert "at least 2 of 4" in problem
        daemon.mesh.state.kernel.segmenting = (Segmenting(4, Module.LOADED, 4),)
        reply = await status(place)
        assert peer(reply, "web2.mesh.example").associations[0].segmentation == ""
        assert reply.data_path_problems == []
    await place.charon.stop()


@asynchronous
async def test_a_folder_that_others_may_write_is_a_problem_until_it_is_mended(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        held = dict(place.charon.sas)
        place.peers.chmod(0o777)
        await until(daemon, lambda: any("chmod go-w" in problem for problem in daemon.problems()))
        assert place.charon.sas == held
        place.peers.chmod(0o755)
        await until(daemon, lambda: not daemon.problems())
        assert place.charon.sas == held
    await place.charon.stop()


@asynchronous
async def test_a_person_gets_counts_of_now(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        # Later than a second after the last look, charon is asked again; before that it is not.
        looked = daemon.counters.last_resync
        assert looked is not None
        daemon.counters.last_resync = looked - 30
        asked_before = sum(command == "list-sas" for command, _ in place.charon.requests)
        await asked(place.client.status)
        assert sum(command == "list-sas" for command, _ in place.charon.requests) == asked_before
        reply = await asked(lambda: place.client.status(fresh=True))
        assert reply.observed is not None and reply.observed >= looked
        place.charon.fault, place.charon.fault_on = Fault.HANG, "list-sas"
        daemon.counters.last_resync = looked - 30
        # A charon that hangs holds nobody up: what is known is told, with its age.
        reply = await asked(lambda: place.client.status(fresh=True))
        assert reply.observed == pytest.approx(looked - 30)
    await place.charon.stop()


@asynchronous
async def test_status_of_one_peer_tells_its_last_downs(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        heard = Listener(daemon)
        place.charon.drop(next(iter(place.charon.sas)))
        await until(daemon, lambda: heard.kinds() == ["peer-down", "peer-up"])
        down = next(event for event in heard.records if event.kind == "peer-down")
        reply = await asked(lambda: place.client.status([down.peer]))
        assert [event.kind for event in reply.peers[0].history] == ["peer-down", "peer-up"]
        assert reply.peers[0].history[0] == down
        assert down.reason_code
        assert all(not each.history for each in (await status(place)).peers)
    await place.charon.stop()


def test_a_peer_that_is_removed_while_it_connects_makes_no_error(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """charon has given up the IKE_SA when it is asked to end it."""
    path = place.peers / "web2.mesh.example.yaml"

    @asynchronous
    async def run() -> None:
        await place.charon.start()
        place.charon.on_initiate = Initiation.HOLD
        async with service(place) as daemon:
            await until(daemon, lambda: len(place.charon.sas) == 3)
            daemon.look(STATUS_ASKED)
            await until(daemon, lambda: any(p.sas for p in daemon.mesh.state.pairs.of("web2.mesh.example")))
            place.charon.give_up()
            path.unlink()
            await until(daemon, lambda: not daemon.mesh.state.pairs.of("web2.mesh.example"))
        await place.charon.stop()

    run()
    lines = capsys.readouterr().out.splitlines()
    assert any("terminate" in line and "web2" in line for line in lines)
    assert not any("[error" in line for line in lines)


def test_a_control_socket_that_cannot_be_made_is_no_bug_of_ours(place: Place) -> None:
    (place.folder / "control.sock").write_text("in the way")
    command = [sys.executable, "-m", "swanmesh", "--config", str(place.config), "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    error = done.stderr
    assert "control.sock: exists and is no socket; remove it, or set control.socket elsewhere" in error
    assert "bug" not in error
