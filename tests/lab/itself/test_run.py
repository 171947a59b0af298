"""lab/run: passes on what the command says and how it ends, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import wait_until
from tests.beside import RUN

pytestmark = pytest.mark.outside
_numbers = itertools.count()
_SLEEPER = """
import os, pathlib, subprocess, sys, time
subprocess.Popen(["sleep", sys.argv[1]])
pathlib.Path(os.environ["LAB_OUT"], "started").write_text("started")
time.sleep(float(sys.argv[1]))
"""


@pytest.fixture(params=["chosen", "native"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The kernel that `run` chooses here, and the machine's own, which may lack ESP but runs commands."""
    kernel = {} if request.param == "chosen" else {"LAB_KERNEL": "native"}
    out = tmp_path / "out folder"
    return {**os.environ, **kernel, "LAB_OUT": str(out)}


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    yield
    for folder in _left(tmp_path) if _was_killed(request) else ():
        shutil.rmtree(folder)  # nobody was left to do it; see the test of the next run
    assert _left(tmp_path) == []


def _was_killed(request: pytest.FixtureRequest) -> bool:
    call = getattr(request.node, "callspec", None)
    return call is not None and call.params.get("number") == signal.SIGKILL


def _left(ours: Path) -> list[Path]:
    """Control folders of this test's runs: others may be at work on this machine."""
    left = []
    for path in Path("/tmp").glob("swanmesh-lab.*/lab-out"):  # noqa: S108
        with contextlib.suppress(OSError):
            if Path(path.read_text()).is_relative_to(ours):
                left.append(path.parent)
    return left


def run(*argv: str, environment: dict[str, str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = (str(RUN), *argv)
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


def test_output_errors_and_status_are_passed_on(environment: dict[str, str]) -> None:
    done = run("sh", "-c", 'echo "out  $1"; echo err >&2; exit 7', "-", "a b", environment=environment)
    assert (done.stdout, done.stderr, done.returncode) == ("out  a b\n", "err\n", 7)


def test_much_output_arrives_whole(environment: dict[str, str]) -> None:
    done = run("seq", "30000", environment=environment)
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 30001))


def test_folder_environment_and_lab_out(environment: dict[str, str], tmp_path: Path) -> None:
    place = tmp_path / "a folder"
    place.mkdir()
    script = 'pwd; echo "$COLOUR"; id -u; echo kept >"$LAB_OUT/file"'
    done = run("sh", "-c", script, environment={**environment, "COLOUR": "light blue"}, cwd=place)
    assert done.stdout.splitlines() == [str(place), "light blue", "0"]
    assert (Path(environment["LAB_OUT"]) / "file").read_text() == "kept\n"


def test_output_that_is_no_terminal_outside_is_none_inside(environment: dict[str, str]) -> None:
    script = "[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none; read line <&0 || echo empty"
    assert run("sh", "-c", script, environment=environment).stdout == "none\nempty\n"


def test_a_process_left_running_holds_nothing_up(environment: dict[str, str]) -> None:
    done = run("sh", "-c", "sleep 86400 & echo gone", environment=environment)
    assert (done.stdout, done.returncode) == ("gone\n", 0)


def test_a_command_ended_by_a_signal_or_missing_says_so(environment: dict[str, str]) -> None:
    assert run("sh", "-c", "kill -KILL $$", environment=environment).returncode == 128 + signal.SIGKILL
    assert run("no-such-command", environment=environment).returncode == 127


def test_the_kernel_it_chooses_has_esp(tmp_path: Path) -> None:
    script = (
        "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 1 mode transport "
        "aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128 && "
        "ip xfrm state list nokeys"
    )
    done = run("sh", "-c", script, environment={**os.environ, "LAB_OUT": str(tmp_path)})
    assert "rfc4106(gcm(aes))" in done.stdout, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_all(environment: dict[str, str], number: signal.Signals) -> None:
    out = Path(environment["LAB_OUT"])
    out.mkdir()
    marker = f"86{os.getpid()}{next(_numbers)}"
    # A background job of a script ignores interrupts, and so would all that we start.
    # No shell: one that is just about to start its next command misses an interrupt.
    command = ("env", "--default-signal=INT", str(RUN), sys.executable, "-c", _SLEEPER, marker)
    process = subprocess.Popen(command, env=environment)
    try:
        wait_until((out / "started").read_text, 60, "the command runs")
        process.send_signal(number)
        status = process.wait(timeout=60)
        assert status == -number if number == signal.SIGKILL else status != 0
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not _commands_with(marker, environment["LAB_OUT"]), 20, "every process is gone")


def _commands_with(*words: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if any(word in command for word in words):
            found.append(command)
    return found


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = Path("/tmp/swanmesh-lab.testtest")  # noqa: S108
    left.mkdir(exist_ok=True)
    (left / "command").touch()
    os.utime(left, (0, 0))
    run("true", environment={**os.environ, "LAB_OUT": str(tmp_path)})
    assert not left.exists()


def test_bad_usage_is_explained() -> None:
    done = run(environment=dict(os.environ))
    assert done.returncode == 2
    assert "run [-m MEMORY] COMMAND" in done.stderr
    done = run("-m", "lots", "true", environment={**os.environ, "LAB_KERNEL": "uml"})
    assert done.returncode == 3
    assert "say a size like 2G" in done.stderr


def test_a_shell_in_a_mesh_on_a_terminal() -> None:
    terminal, inner = pty.openpty()
    command = ("env", "--default-signal=INT", str(RUN), sys.executable, "-m", "lab.shell", "2")
    process = subprocess.Popen(command, cwd=RUN.parents[1], stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    said = b""

    def shown(what: bytes) -> bool:
        nonlocal said
        if select.select([terminal], [], [], 0)[0]:
            said += os.read(terminal, 65536)
        found = what in said
        if found:
            said = b""
        return found

    try:
        wait_until(lambda: shown(b"lab# "), 120, "the shell prompts")
        os.write(terminal, b"host 1 swanmesh status\r")
        wait_until(lambda: shown(b"1 peer: 1 up"), 30, "status shows the peer")
        os.write(terminal, b"host 2 sh -c 'echo ru''ns; exec sleep 1000'\r")
        wait_until(lambda: shown(b"runs"), 20, "the command runs")
        os.write(terminal, b"\x03")
        wait_until(lambda: shown(b"lab# "), 20, "it is interrupted")
        os.write(terminal, b"echo status $?\r")
        wait_until(lambda: shown(b"status 130"), 10, "its status tells so")
        os.write(terminal, b"exit 5\r")
        assert process.wait(timeout=60) == 5
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def test_a_shell_without_a_terminal_says_so() -> None:
    command = (sys.executable, "-m", "lab.shell", "2")
    done = subprocess.run(
        command, cwd=RUN.parents[1], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


def test_scripts_are_clean() -> None:
    scripts = [
        path for path in RUN.parent.iterdir() if path.is_file() and path.read_bytes()[:11] == b"#!/bin/bash"
    ]
    assert len(scripts) >= 4
    command = ("shellcheck", *map(str, scripts))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
