"""One hook as a process: its end, its time limit, what it writes, and all the ways to misbehave."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path

import msgspec
import pytest

from lab.waiting import wait_until
from swanmesh.core.events import MeshEvent
from swanmesh.hooks.process import HookRun, run_hook
from swanmesh.hooks.queue import Turn
from swanmesh.programs import process
from swanmesh.programs.process import FILE_SIZE, OUTPUT
from tests.unit.hooks.hooking import alive, end, event, hooks_of, until, write_hook

EVENT = event("peer-down", "web2.mesh.example", "peer unreachable")


def run(hook: Path, *, timeout: float = 30.0, told: MeshEvent = EVENT) -> HookRun:
    """One run to its end."""
    runs: list[HookRun] = []
    asyncio.run(run_hook(hook, Turn(told), runs.append, environment={}, timeout=timeout))
    return runs[0]


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    return tmp_path / "hook"


def test_exit_status_and_signals_are_told(hook: Path) -> None:
    assert (run(write_hook(hook, "exit 0")).status, run(hook).error) == (0, "")
    ended = run(write_hook(hook, "exit 3"))
    assert (ended.status, ended.error) == (3, "exit status 3")
    ended = run(write_hook(hook, "kill -SEGV $$"))
    assert (ended.status, ended.error) == (-11, "killed by SIGSEGV")
    assert ended.seconds > 0


def test_output_and_errors_are_kept_line_by_line(hook: Path) -> None:
    ended = run(write_hook(hook, "echo one; echo two >&2; echo; printf three"))
    assert ended.output == ("one", "two", "three")


def test_output_is_made_printable(hook: Path) -> None:
    """Nothing of it may steer a terminal, forge a line of the log, or break the log's encoding."""
    text = r"printf 'a\033[31mred\r\nb\000c\nd\377e\nf\342\200\256g\n\tX\rlevel=error\n'"
    ended = run(write_hook(hook, text))
    assert all(line.isprintable() for line in ended.output)
    assert ended.output == (
        r"a\x1b[31mred",
        r"b\x00c",
        r"d\xffe",
        r"f\x202eg",
        r"        X\x0dlevel=error",
    )


@pytest.mark.parametrize("flood", ["exec yes 0123456789abcdef", "yes 0123456789abcdef & wait $!"])
def test_a_flood_is_ended_at_its_bound_and_its_end_is_shown(hook: Path, flood: str) -> None:
    ended = run(write_hook(hook, flood))
    assert ended.error in (
        f"exit status {128 + signal.SIGXFSZ}",
        "killed by SIGXFSZ: it wrote more than 4 MiB",
    )
    assert ended.output[0] == f"({FILE_SIZE - OUTPUT} bytes before this)"
    assert set(ended.output[2:9]) == {"0123456789abcdef"}
    assert sum(map(len, ended.output[1:])) < OUTPUT


def test_no_file_of_a_hook_grows_without_end(hook: Path, tmp_path: Path) -> None:
    """Nor may it lift the bound, which holds for all that it starts."""
    write_hook(hook, f"ulimit -f unlimited; setsid -w head -c 100M /dev/zero > {tmp_path}/large; echo $?")
    assert run(hook).output[-1] == str(128 + signal.SIGXFSZ)
    assert (tmp_path / "large").stat().st_size == FILE_SIZE


def test_a_long_line_is_cut(hook: Path) -> None:
    ended = run(write_hook(hook, "head -c 200000 /dev/zero | tr '\\0' x"))
    assert ended.error == ""
    assert ended.output == (f"({200000 - OUTPUT} bytes before this)", "x" * OUTPUT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_a_hook_of_root_has_no_capabilities_and_gets_none_back(hook: Path) -> None:
    ended = run(write_hook(hook, "setpriv --dump; ip link add hook0 type dummy"))
    sets = [line for line in ended.output if line.startswith(("Inh", "Amb"))]
    assert sets == ["Inheritable capabilities: [none]", "Ambient capabilities: [none]"]
    assert "no_new_privs: 1" in ended.output
    ended = run(write_hook(hook, "exec grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status"))
    assert [line.split()[1] for line in ended.output] == ["0" * 16] * 4


def test_the_time_limit_ends_the_whole_process_group(hook: Path, tmp_path: Path) -> None:
    """The hook, its child, and a grandchild that holds the output."""
    pids = [tmp_path / name for name in ("hook.pid", "child.pid", "grandchild.pid")]
    write_hook(
        hook,
        f"""
        echo $$ > {pids[0]}
        (sh -c 'echo $$ > {pids[2]}; exec sleep 3600' & exec sleep 3600) &
        echo $! > {pids[1]}
        echo begun
        wait
        """,
    )
    ended = run(hook, timeout=1.0)
    assert ended.error == "not done after 1 s: ended with all of its processes"
    assert (ended.status, ended.output) == (-15, ("begun",))
    assert 1.0 <= ended.seconds < 30
    assert all(path.exists() for path in pids)
    wait_until(lambda: not any(map(alive, pids)), 20, "all three are gone")


def test_who_does_not_care_for_sigterm_is_killed(
    hook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.3)
    child = tmp_path / "child.pid"
    # The second time the hook itself goes at SIGTERM, and only its child, which lets go of the output, stays.
    for trap in ("trap '' TERM", ":"):
        write_hook(
            hook,
            f"""
            {trap}
            sh -c 'trap "" TERM; echo $$ > {child}; while :; do sleep 1; done' > /dev/null 2>&1 &
            while :; do sleep 1; done
            """,
        )
        ended = run(hook, timeout=0.7)
        assert ended.error.startswith("not done after")
        assert ended.status == (-15 if trap == ":" else -9)
        assert child.exists()
        wait_until(lambda: not alive(child), 20, "SIGKILL has ended the child")


def test_a_hook_may_clean_up_at_sigterm(hook: Path) -> None:
    write_hook(hook, "trap 'echo cleaned; exit 0' TERM; echo begun; while :; do sleep 0.01; done")
    ended = run(hook, timeout=0.5)
    assert ended.output[-1] == "cleaned"
    assert ended.error.startswith("not done")


def test_a_stopped_hook_is_ended_at_its_limit(hook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.3)
    ended = run(write_hook(hook, "kill -STOP $$"), timeout=0.3)
    assert (ended.status, ended.error[:8]) == (-9, "not done")


def test_a_hook_has_a_session_of_its_own(hook: Path) -> None:
    """Signals for the service's group, Ctrl-C for one, are not for its hooks; and no terminal is theirs."""
    ended = run(write_hook(hook, "read -r _ _ _ _ group session _ < /proc/$$/stat; echo $$ $group $session"))
    pid, group, session = ended.output[0].split()
    assert pid == group == session


def test_a_hook_inherits_no_descriptors(hook: Path) -> None:
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        ended = run(write_hook(hook, "ls /proc/$$/fd"))
    finally:
        os.close(secret)
    # 10 is the script itself, as the shell reads it.
    assert set(ended.output) <= {"0", "1", "2", "10"}


def test_standard_input_can_be_closed_left_alone_or_large(hook: Path) -> None:
    large = MeshEvent(kind="started", time=1.5, details={"": "x" * 1_000_000})
    size = len(msgspec.json.encode(large))
    assert run(write_hook(hook, "exec <&-; sleep 0.05; echo done"), told=large).output == ("done",)
    assert run(write_hook(hook, "echo done"), told=large).output == ("done",)
    assert run(write_hook(hook, "wc -c"), told=large).output == (str(size),)
    assert run(write_hook(hook, "echo spoilt > /dev/stdin; echo done"), told=large).output == ("done",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no interpreter named\n", "#!/bin/sh"),
        ("#!/nonexistent/interpreter\n", "interpreter that its first line names"),
        ("#!/etc/passwd\n", "execute it and its interpreter"),
    ],
    ids=["no first line", "missing interpreter", "interpreter that is none"],
)
def test_what_cannot_be_started_is_told_with_the_remedy(tmp_path: Path, text: str, words: str) -> None:
    hook = write_hook(tmp_path / "hooks.d" / "broken", "")
    hook.write_text(text)
    write_hook(tmp_path / "hooks.d" / "whole", "exit 0")

    async def main() -> None:
        async with hooks_of(tmp_path / "hooks.d") as (hooks, reports):
            hooks.submit(EVENT)
            await until(lambda: len(reports.runs) == 2, "both were tried")
            assert reports.runs[0].status is None
            assert reports.runs[0].error.startswith("cannot be started: ")
            assert words in reports.runs[0].error
            assert reports.runs[1].error == ""

    asyncio.run(main())


def test_nothing_is_left_of_a_run(hook: Path) -> None:
    write_hook(hook, "echo done")

    def held() -> tuple[list[str], str]:
        """Descriptors and children of this process."""
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        return sorted(path.name for path in Path("/proc/self/fd").iterdir()), children

    async def main() -> None:
        before = held()
        runs: list[HookRun] = []
        for path in (hook, hook, hook, hook.with_name("nothing")):
            await run_hook(path, Turn(EVENT), runs.append, environment={})
        assert [run.status for run in runs] == [0, 0, 0, None]
        assert held() == before

    asyncio.run(main())


def test_a_hook_that_cannot_be_watched_for_want_of_descriptors_is_not_run(
    hook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    write_hook(hook, f"echo $$ > {pid}; exec sleep 3600")

    def exhausted(number: int) -> int:
        wait_until(pid.exists, 20, "the hook runs")
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", exhausted)
    assert (
        run(hook).error == "cannot be started: too many open files; raise LimitNOFILE in the service's unit"
    )
    assert not alive(pid)


def test_a_service_that_was_started_with_sigchld_ignored_goes_on(hook: Path) -> None:
    write_hook(hook, "exit 3")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run(hook).error == "exit status 3"
    finally:
        signal.signal(signal.SIGCHLD, before)


# What hooks leave behind.


def test_a_daemon_that_let_go_of_the_output_lives_on(hook: Path, tmp_path: Path) -> None:
    pid = tmp_path / "daemon.pid"
    write_hook(hook, f"setsid sleep 3600 </dev/null >/dev/null 2>&1 & echo $! > {pid}")
    ended = run(hook)
    assert (ended.status, ended.error) == (0, "")
    try:
        assert alive(pid)
    finally:
        end(pid)


def test_what_a_hook_leaves_in_its_group_ends_soon_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it holds the output or not."""
    monkeypatch.setattr(process, "LEFT", 0.5)
    directory, pids = tmp_path / "hooks.d", tmp_path / "pids"
    pids.mkdir()
    write_hook(
        directory / "hook",
        f"""
        sleep 3600 & echo $! > {pids}/$SWANMESH_EVENT.1
        (trap '' TERM HUP; sleep 3600 > /dev/null 2>&1 & echo $! > {pids}/$SWANMESH_EVENT.2)
        """,
    )

    async def main() -> None:
        async with hooks_of(directory) as (hooks, reports):
            hooks.submit(event("peer-up", "web2"))
            hooks.submit(event("peer-removed", "web2"))
            await until(lambda: len(reports.runs) == 2, "both have been told")
            assert reports.errors() == []
            assert len(list(pids.iterdir())) == 4
            await until(lambda: not any(map(alive, pids.iterdir())), "all of it is gone")

    asyncio.run(main())


def test_who_left_the_group_may_hold_the_output(hook: Path, tmp_path: Path) -> None:
    pid = tmp_path / "daemon.pid"
    write_hook(hook, f"echo begun; setsid sleep 3600 & echo $! > {pid}")
    try:
        assert run(hook).output == ("begun",)
        assert alive(pid)
    finally:
        end(pid)


@pytest.mark.parametrize("trap", ["trap 'echo cleaned; exit' TERM", "trap 'echo cleaned' TERM"])
def test_cancelling_ends_a_hook_with_its_group_and_says_so(
    hook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.5)
    pid = tmp_path / "child.pid"
    write_hook(hook, f"{trap}; sleep 3600 & echo $! > {pid}; while :; do sleep 0.01; done")
    runs: list[HookRun] = []

    async def main() -> None:
        task = asyncio.create_task(run_hook(hook, Turn(EVENT), runs.append, environment={}))
        await until(lambda: pid.exists() and alive(pid), "it runs")
        task.cancel("the service stops")
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    assert [run.error for run in runs] == ["the service stops: ended with all of its processes"]
    assert "cleaned" in runs[0].output
    wait_until(lambda: not alive(pid), 20, "its child is gone, too")


def test_cancelled_twice_it_is_killed_at_once(
    hook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE", 3600)
    pid = tmp_path / "pid"
    write_hook(hook, f"trap '' TERM; echo $$ > {pid}; while :; do sleep 1; done")

    async def main() -> None:
        task = asyncio.create_task(run_hook(hook, Turn(EVENT), print, environment={}))
        await until(lambda: pid.exists() and alive(pid), "it runs")
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        await until(lambda: not alive(pid), "it is gone")

    asyncio.run(main())
