"""Order, bounds, and the stop: real processes, told by real scripts what they saw."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import msgspec
import pytest

from swanmesh.core.events import MeshEvent
from swanmesh.programs import process
from tests.unit.hooks.hooking import event, hooks_of, until, write_hook, written


def recorder(directory: Path, name: str = "10-record", after: str = "") -> tuple[Path, Path]:
    """A hook that writes one line for each event, and the file that it writes to."""
    log = directory.parent / f"{name}.log"
    line = f'echo "$SWANMESH_EVENT $SWANMESH_PEER $SWANMESH_SKIPPED" >> {log}'
    return write_hook(directory / name, f"{line}\n{after}"), log


def gated(directory: Path, gate: Path) -> Path:
    """A hook that writes a line when it begins, waits until `gate` is there, and writes another; the file."""
    log = directory.parent / "gated.log"
    write_hook(
        directory / "10-gated",
        f"""
        echo "begin $SWANMESH_EVENT $SWANMESH_PEER $SWANMESH_SKIPPED $SWANMESH_REASON" >> {log}
        until test -e {gate}; do sleep 0.01; done
        echo "end $SWANMESH_EVENT $SWANMESH_PEER $SWANMESH_SKIPPED $SWANMESH_REASON" >> {log}
        """,
    )
    return log


def test_a_hook_gets_the_event_in_its_environment_and_on_standard_input(tmp_path: Path) -> None:
    directory, out = tmp_path / "hooks.d", tmp_path / "out"
    write_hook(directory / "env", f"env > {out}.env; cat > {out}.json; pwd > {out}.cwd; umask > {out}.umask")
    record = {
        "event": "peer-down",
        "time": 1.5,
        "peer": "web2.mesh.example",
        "addresses": ["203.0.113.2", "2001:db8::2"],
        "reason": 'it said "no"; $(reboot)',
    }

    async def main() -> None:
        async with hooks_of(directory) as (hooks, reports):
            hooks.environment = {"SWANMESH_HOST": "web1.mesh.example"}
            hooks.submit(msgspec.convert(record, MeshEvent))
            await until(lambda: reports.runs, "the hook has run")
            assert reports.errors() == []

    asyncio.run(main())
    environment = dict(line.split("=", 1) for line in written(Path(f"{out}.env")))
    assert environment.pop("PWD") == "/"
    for shell in ("SHLVL", "_", "OLDPWD"):
        environment.pop(shell, None)
    assert environment == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "SWANMESH_HOST": "web1.mesh.example",
        "SWANMESH_EVENT": "peer-down",
        "SWANMESH_PEER": "web2.mesh.example",
        "SWANMESH_ADDRESSES": "203.0.113.2 2001:db8::2",
        "SWANMESH_REASON": 'it said "no"; $(reboot)',
        "SWANMESH_SKIPPED": "0",
    }
    assert json.loads(Path(f"{out}.json").read_text()) == record
    assert written(Path(f"{out}.cwd")) == ["/"]
    assert int(Path(f"{out}.umask").read_text(), 8) == 0o077


def test_all_hooks_run_in_order_of_name_also_after_one_that_fails(tmp_path: Path) -> None:
    directory, log = tmp_path / "hooks.d", tmp_path / "log"
    for name in ("30-c", "10-a", "20-b"):
        write_hook(directory / name, f"echo {name} >> {log}; test {name} != 10-a")

    async def main() -> None:
        async with hooks_of(directory) as (hooks, reports):
            hooks.submit(event("started"))
            await until(lambda: len(reports.runs) == 3, "all three have run")
            assert [(run.hook.name, run.error) for run in reports.runs] == [
                ("10-a", "exit status 1"),
                ("20-b", ""),
                ("30-c", ""),
            ]

    asyncio.run(main())
    assert written(log) == ["10-a", "20-b", "30-c"]


def test_a_hook_added_or_switched_off_later_needs_no_reload(tmp_path: Path) -> None:
    directory = tmp_path / "hooks.d"

    async def main() -> None:
        async with hooks_of(directory) as (hooks, reports):
            hooks.submit(event("peer-up", "web2"))
            hook, log = recorder(directory)
            hooks.submit(event("peer-up", "web3"))
            await until(lambda: len(reports.runs) == 1, "the new hook has run")
            hook.rename(hook.with_name("10-record.disabled"))
            hooks.submit(event("peer-up", "web4"))
            await until(lambda: not hooks._rows, "nothing was there to run for web4")
            hook.with_name("10-record.disabled").rename(hook)
            hooks.submit(event("peer-up", "web5"))
            await until(lambda: len(reports.runs) == 2, "it has run again")
            assert written(log) == ["peer-up web3 0", "peer-up web5 0"]

    asyncio.run(main())


def test_events_of_one_peer_keep_their_order(tmp_path: Path) -> None:
    directory = tmp_path / "hooks.d"
    _, log = recorder(directory)
    kinds = ["peer-added", "peer-up", "peer-removed"] * 3

    async def main() -> None:
        async with hooks_of(directory) as (hooks, reports):
            for kind in kinds:
                hooks.submit(event(kind, "web2"))
            await until(lambda: len(reports.runs) == len(kinds), "all have run")

    asyncio.run(main())
    assert written(log) == [f"{kind} web2 0" for kind in kinds]


def test_peers_run_side_by_side_up_to_the_bound(tmp_path: Path) -> None:
    directory, gate = tmp_path / "hooks.d", tmp_path / "gate"
    log = gated(directory, gate)

    async def main() -> None:
        async with hooks_of(directory, parallel=3) as (hooks, reports):
            for number in range(10):
                hooks.submit(event("peer-up", f"web{number}"))
            # What charon does is told beside them.
            hooks.submit(event("charon-lost"))
            await until(lambda: len(written(log)) == 4, "as many run as may")
            gate.touch()
            await until(lambda: len(reports.runs) == 11, "all have run")

    asyncio.run(main())
    at_once, most = 0, 0
    for line in written(log):
        at_once += 1 if line.startswith("begin") else -1
        most = max(most, at_once)
    assert most == 4
    assert sorted(line.split()[2] for line in written(log) if line.startswith("begin peer-up")) == [
        f"web{number}" for number in range(10)
    ]


def test_a_flapping_peer_gets_its_latest_state_and_not_fifty_runs(tmp_path: Path) -> None:
    directory, gate = tmp_path / "hooks.d", tmp_path / "gate"
    log = gated(directory, gate)

    async def main() -> None:
        async with hooks_of(directory) as (hooks, reports):
            hooks.submit(event("peer-up", "web2", "0"))
            await until(lambda: written(log), "the first run has begun")
            for number in range(1, 51):
                hooks.submit(event("peer-down" if number % 2 else "peer-up", "web2", str(number)))
            hooks.submit(event("peer-down", "web2", "51"))
            gate.touch()
            await until(lambda: len(reports.runs) == 2, "the latest has been told")

    asyncio.run(main())
    assert written(log) == [
        "begin peer-up web2 0 0",
        "end peer-up web2 0 0",
        "begin peer-down web2 50 51",
        "end peer-down web2 50 51",
    ]


def test_a_peer_removed_and_back_while_its_hook_runs_is_told_both(tmp_path: Path) -> None:
    directory, gate = tmp_path / "hooks.d", tmp_path / "gate"
    log = gated(directory, gate)

    async def main() -> None:
        async with hooks_of(directory) as (hooks, reports):
            hooks.submit(event("peer-up", "web2"))
            await until(lambda: written(log), "the first run has begun")
            for kind in ("peer-down", "peer-up", "peer-removed", "peer-added", "peer-up", "peer-down"):
                hooks.submit(event(kind, "web2"))
            gate.touch()
            await until(lambda: len(reports.runs) == 5, "all of them have run")

    asyncio.run(main())
    assert [line.split()[1] for line in written(log) if line.startswith("begin")] == [
        "peer-up",
        "peer-up",
        "peer-removed",
        "peer-added",
        "peer-down",
    ]


def test_a_hanging_hook_holds_up_its_own_peer_alone(tmp_path: Path) -> None:
    directory = tmp_path / "hooks.d"
    _, log = recorder(directory, after='test "$SWANMESH_PEER" != web2 || sleep 3600')

    async def main() -> None:
        async with hooks_of(directory, parallel=2) as (hooks, reports):
            hooks.submit(event("peer-up", "web2"))
            await until(lambda: written(log), "it hangs")
            hooks.submit(event("peer-removed", "web2"))
            for number in range(3, 9):
                hooks.submit(event("peer-up", f"web{number}"))
            hooks.submit(event("charon-lost"))
            await until(lambda: len(reports.runs) == 7, "all others have run")
            assert "peer-removed" not in log.read_text()

    asyncio.run(main())


def test_submit_returns_at_once_and_the_loop_turns(tmp_path: Path) -> None:
    """In ratio to one run of the same hook, whatever the machine."""
    directory = tmp_path / "hooks.d"
    recorder(directory, after="sleep 0.5")

    async def main() -> None:
        async with hooks_of(directory, parallel=4) as (hooks, reports):
            hooks.submit(event("peer-up", "first"))
            await until(lambda: reports.runs, "one has run")
            one = reports.runs[0].seconds
            began = time.monotonic()
            for number in range(200):
                hooks.submit(event("peer-up", f"web{number}"))
            submitted = time.monotonic() - began
            assert submitted < one
            turns, end = 0, time.monotonic() + one
            while time.monotonic() < end:
                await asyncio.sleep(0)
                turns += 1
            assert turns > 50

    asyncio.run(main())


def test_the_directory_may_change(tmp_path: Path) -> None:
    _, first = recorder(tmp_path / "one.d", "first")
    _, second = recorder(tmp_path / "two.d", "second")

    async def main() -> None:
        async with hooks_of(tmp_path / "one.d") as (hooks, reports):
            hooks.submit(event("peer-up", "web2"))
            await until(lambda: len(reports.runs) == 1, "the first has run")
            hooks.directory = tmp_path / "two.d"
            hooks.submit(event("peer-down", "web2"))
            await until(lambda: len(reports.runs) == 2, "the second has run")

    asyncio.run(main())
    assert (written(first), written(second)) == (["peer-up web2 0"], ["peer-down web2 0"])


def test_why_a_file_is_not_run_is_told_once(tmp_path: Path) -> None:
    directory = tmp_path / "hooks.d"
    recorder(directory)
    bad = write_hook(directory / "bad", "exit 0", mode=0o777)
    note = write_hook(directory / "README", "exit 0", mode=0o644)

    async def main() -> None:
        async with hooks_of(directory) as (hooks, reports):

            async def one_event() -> None:
                ran = len(reports.runs)
                hooks.submit(event("charon-lost"))
                await until(lambda: len(reports.runs) > ran, "the hook has run")

            await one_event()
            await one_event()
            assert [(notice.path, notice.harmless) for notice in reports.notices] == [
                (bad, False),
                (note, True),
            ]
            bad.chmod(0o755)
            await one_event()
            await until(lambda: {run.hook.name for run in reports.runs} == {"10-record", "bad"}, "bad runs")
            bad.chmod(0o777)
            await one_event()
            assert [notice.path for notice in reports.notices] == [bad, note, bad]

    asyncio.run(main())


# The stop.


def test_stopping_is_told_and_what_runs_gets_its_time(tmp_path: Path) -> None:
    directory = tmp_path / "hooks.d"
    _, log = recorder(directory, after='test "$SWANMESH_EVENT" = stopping || sleep 0.2')

    async def main() -> None:
        async with hooks_of(directory, parallel=1) as (hooks, reports):
            hooks.submit(event("charon-lost"))
            hooks.submit(event("peer-up", "web2"))
            hooks.submit(event("peer-removed", "web2"))
            hooks.submit(event("stopping"))
            await hooks.close(20.0)
            assert reports.errors() == []
            hooks.submit(event("started"))

    asyncio.run(main())
    lines = written(log)
    assert lines[-1] == "stopping  0"
    assert [line for line in lines if "web2" in line] == ["peer-up web2 0", "peer-removed web2 0"]
    assert sorted(line.split()[0] for line in lines) == ["charon-lost", "peer-removed", "peer-up", "stopping"]


def test_hooks_that_hang_do_not_keep_stopping_from_being_told_nor_the_service_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "hooks.d"
    _, log = recorder(directory, after="trap '' TERM; sleep 3600; sleep 3600")
    limit = 3.0
    monkeypatch.setattr(process, "GRACE", limit / 10)

    async def main() -> None:
        async with hooks_of(directory, parallel=1) as (hooks, reports):
            for peer in ("web2", "web3", "web4"):
                hooks.submit(event("peer-down", peer))
            hooks.submit(event("charon-lost"))
            await until(lambda: len(written(log)) == 2, "both rows hang")
            hooks.submit(event("stopping"))
            began = time.monotonic()
            await hooks.close(limit)
            assert time.monotonic() - began < 2 * limit
            assert [notice.message for notice in reports.notices] == [
                "the service stops: 2 more events are not told to hooks"
            ]
            assert not hooks._tasks

    asyncio.run(main())
    assert "stopping  0" in written(log)


def test_a_stop_without_hooks_takes_no_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with hooks_of(tmp_path / "nowhere") as (hooks, _):
            hooks.submit(event("stopping"))
            began = time.monotonic()
            await hooks.close(10.0)
            assert time.monotonic() - began < 1

    asyncio.run(main())
