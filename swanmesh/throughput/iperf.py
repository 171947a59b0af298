"""iperf3 as a process that may do nothing but carry bytes: as nobody, and gone with whoever started it.

It speaks a protocol of its own with its like at a host that may be an intruder, and is written in C.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from swanmesh.core.model import AddressPair, shown
from swanmesh.machine import processors
from swanmesh.throughput.messages import Ask, Carried

GRACE = 10.0
"""Seconds that a transfer may take beyond its time: to begin, and to tell what came of it."""
_REPORT = 1 << 20
"""Bytes of iperf3's report, at most; without intervals it has some 2 KiB a stream."""
_LEFT = 1.0
"""Seconds in which it ends once all is done."""
_NOBODY = 65534
MISSING = "iperf3 is not installed: apt-get install iperf3"
RIGHTS = "the service lacks rights: see /etc/swanmesh/bench.conf.disabled"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Failed(Exception):
    """iperf3 could not do it: why, and what to do."""


class _Sum(msgspec.Struct):
    bits_per_second: float = 0.0
    retransmits: int = 0


class _End(msgspec.Struct):
    sum_sent: _Sum = msgspec.field(default_factory=_Sum)
    sum_received: _Sum = msgspec.field(default_factory=_Sum)


class _Report(msgspec.Struct):
    end: _End = msgspec.field(default_factory=_End)
    error: str = ""


async def carry(addresses: AddressPair, ask: Ask) -> Carried:
    """Connect to the iperf3 that listens at the remote address, and do what was asked. Raises Failed.

    Cancelled, it is ended at once. `busy` of the result is left to the caller."""
    words = ["--client", str(addresses.remote), "--port", str(ask.port), "--time", str(ask.seconds)]
    words += ["--parallel", str(ask.streams), "--json", "--interval", "0", "--connect-timeout", "3000"]
    words += ["--reverse"] if not ask.send else []
    async with running(addresses, *words) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe, see there
        text = b""
        try:
            async with asyncio.timeout(ask.seconds + GRACE):
                while block := await process.stdout.read(_REPORT - len(text)):
                    text += block
        except TimeoutError:
            raise Failed(f"iperf3 did not end within {ask.seconds + GRACE:.0f} s, and was ended") from None
    return _carried(text)


def _carried(text: bytes) -> Carried:
    try:
        report = msgspec.json.decode(text, type=_Report)
    except msgspec.MsgspecError:
        said = text.decode(errors="replace").strip().splitlines()
        raise Failed(
            f"iperf3 did not report: {shown(said[-1] if said else 'it said nothing', 200)}"
        ) from None
    if report.error:
        raise Failed(f"iperf3: {shown(report.error, 200)}")
    resent = max(0, report.end.sum_sent.retransmits)
    return Carried(bits=max(0.0, report.end.sum_received.bits_per_second), resent=resent)


@contextlib.asynccontextmanager
async def listening(addresses: AddressPair, port: int) -> AsyncIterator[asyncio.StreamReader]:
    """iperf3 for one client, at the local address; what it says from then on. Raises Failed."""
    words = ["--server", "--one-off", "--port", str(port), "--forceflush", "--format", "m"]
    async with running(addresses, *words) as process:
        said = process.stdout
        assert said is not None  # noqa: S101 - a pipe, see there
        last = ""
        try:
            async with asyncio.timeout(GRACE):
                while line := await said.readline():
                    if line.startswith(b"Server listening"):
                        break
                    last = line.decode(errors="replace").strip() or last
        except TimeoutError:
            line = b""
        if not line:
            where = f"{addresses.local} port {port}"
            raise Failed(f"iperf3 does not listen at {where}: {shown(last, 200)}; another port: --port")
        yield said


@contextlib.asynccontextmanager
async def running(addresses: AddressPair, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Bound to the local address. Ended, if it still runs, when the block is left. Raises Failed."""
    program = shutil.which("iperf3")
    if program is None:
        raise Failed(MISSING)
    version = f"-{addresses.local.version}"
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *(version, "--bind", str(addresses.local), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            start_new_session=True,  # an interrupt from the terminal is for us, who end it
            preexec_fn=_die_along(),
            **_as_nobody(),
        )
    except PermissionError:
        raise Failed(f"iperf3 cannot be started as nobody: {RIGHTS}") from None
    except OSError as error:
        raise Failed(f"{program} cannot be started: {error.strerror}") from None
    try:
        yield process
        # By itself, if it can: to kill what has just ended takes its status from asyncio, which complains.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _LEFT)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        while process.stdout is not None and await process.stdout.read(_REPORT):
            pass  # what it said before, so that asyncio sees the end and closes the pipe
        await process.wait()


def lacking() -> str:
    """Why iperf3 could not be started here, in words; empty if it can."""
    if shutil.which("iperf3") is None:
        return MISSING
    try:
        if os.geteuid() == 0:
            os.setgroups(os.getgroups())  # changes nothing, and takes the same rights
        processors.times()
    except OSError:
        return RIGHTS
    return ""


def _as_nobody() -> dict[str, Any]:
    """Without root's rights and files; whoever is not root keeps what it is."""
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@functools.cache
def _die_along() -> Callable[[], None]:
    """What the child does before it becomes iperf3: it asks to be killed when its parent ends, however that
    ends. A change of the user would undo it, so that comes before (_posixsubprocess.c)."""
    libc = ctypes.CDLL(None)

    def die_along() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return die_along
