"""One hook as a process: started, listened to, and ended with all that belongs to it.

A hook is over when its own process has ended, whatever it left running in the background. What was left and
still holds the hook's output has until the hook's time limit; what wants to live longer lets go of it
(`setsid … </dev/null >/dev/null 2>&1 &`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from swanmesh.hooks.output import HookOutput

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
_DRAIN = 0.2
"""Seconds that output has to come to its end after the hook itself has ended."""

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
"""All that hooks get beside the event, so that they do the same however the service was started."""


class _Record(msgspec.Struct):
    """What of a record of the event stream goes into the environment."""

    event: str
    peer: str = ""
    addresses: list[str] = []
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookEvent:
    """What happened, as hooks are told."""

    event: str
    """peer-added, peer-up, peer-down, peer-removed, charon-lost, charon-back, started, stopping."""
    peer: str = ""
    """Empty for what concerns no single peer."""
    addresses: tuple[str, ...] = ()
    reason: str = ""
    record: bytes = b"{}"
    """The event as one JSON document, for standard input."""
    skipped: int = 0
    """Events before it that were not told because this one overtook them."""

    @classmethod
    def from_record(cls, record: bytes) -> HookEvent:
        """The event that a line of the event stream tells. Raises msgspec.DecodeError."""
        fields = msgspec.json.decode(record, type=_Record)
        return cls(
            event=fields.event,
            peer=fields.peer,
            addresses=tuple(fields.addresses),
            reason=fields.reason,
            record=record,
        )

    def environment(self) -> dict[str, str]:
        # A zero byte cannot be passed, and a reason comes from other programs.
        return {
            "SWANMESH_EVENT": self.event,
            "SWANMESH_PEER": self.peer,
            "SWANMESH_ADDRESSES": " ".join(self.addresses),
            "SWANMESH_REASON": self.reason.replace("\0", " "),
            "SWANMESH_SKIPPED": str(self.skipped),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRun:
    """How one run of one hook ended."""

    hook: Path
    event: HookEvent
    status: int | None
    """Exit status; negative: the signal that killed it; None if it could not be started."""
    seconds: float
    output: tuple[str, ...] = ()
    """What it wrote, line by line, printable, and bounded."""
    error: str = ""
    """What went wrong, in words; empty if nothing did."""


class HookProcess:
    """A running hook, in a session and process group of its own.

    It is not reaped for as long as its group may still be signalled: until then the group's number cannot
    pass to strangers.
    """

    def __init__(
        self, hook: Path, event: HookEvent, *, timeout: float, environment: Mapping[str, str] | None = None
    ) -> None:
        """Starts it; needs a running event loop. Raises OSError if it cannot be started."""
        self.hook, self.event = hook, event
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timeout = timeout
        self._deadline = self._began + timeout
        self._changed = asyncio.Event()
        self._exited = self._given_up = False
        self._cut = ""
        self._status: int | None = None
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            self._popen = _start(hook, event, writer, {**_ENVIRONMENT, **(environment or {})})
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._output = HookOutput(reader, self._changed.set)
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(self._popen.pid)
        except OSError:
            # Out of descriptors: nobody would notice its end.
            self.kill()
            raise
        self._loop.add_reader(self._pidfd, self._on_exit)

    @property
    def left_behind(self) -> bool:
        """Whether processes that it started still hold its output, though it has ended itself."""
        return self._exited and not self._output.closed

    async def finish(self) -> HookRun:
        """Until it has ended by itself, or at its time limit with all of its process group."""
        await self._until(lambda: self._exited or bool(self._cut), self._deadline)
        if self._exited:
            drained = min(self._deadline, self._loop.time() + _DRAIN)
            await self._until(lambda: self._output.closed, drained)
            error = _error(self._status)
            if self._output.closed:
                self._reap()
        else:
            reason = self._cut or f"not done after {self._timeout:g} s"
            await self._end_group()
            error = f"{reason}: ended with all of its processes"
            if not self._exited:
                error = f"{reason}: cannot be killed, it hangs in the kernel"
        return HookRun(
            hook=self.hook,
            event=self.event,
            status=self._status,
            seconds=self._loop.time() - self._began,
            output=self._output.lines(),
            error=error,
        )

    async def end_left_behind(self) -> bool:
        """Until those left behind let go of the output, or at the time limit end them. Returns whether that
        was necessary."""
        await self._until(lambda: self._output.closed or bool(self._cut), self._deadline)
        if not self._output.closed:
            await self._end_group()
            return True
        self._reap()
        return False

    def cut(self, reason: str) -> None:
        """Its time limit is now."""
        self._cut = reason
        self._changed.set()

    def kill(self) -> None:
        """End it at once, from a place that cannot wait."""
        self._signal(signal.SIGKILL)
        self._output.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(GRACE)
        self._no_longer_watched()

    async def _end_group(self) -> None:
        self._signal(signal.SIGTERM)
        grace = self._loop.time() + GRACE
        await self._until(lambda: self._exited and self._output.closed, grace)
        # Also if the hook itself is gone: others of its group may not have cared for SIGTERM.
        self._signal(signal.SIGKILL)
        await self._until(lambda: self._exited, self._loop.time() + GRACE)
        self._output.close()
        if self._exited:
            self._reap()
        else:
            self._given_up = True

    async def _until(self, condition: Callable[[], bool], deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while not condition():
                    await self._changed.wait()
                    self._changed.clear()

    def _on_exit(self) -> None:
        self._no_longer_watched()
        try:
            ended = os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            # Whoever started this service had SIGCHLD ignored: the kernel has reaped it.
            self._reap()
        else:
            if ended is not None:
                killed = ended.si_code != os.CLD_EXITED
                self._status = -ended.si_status if killed else ended.si_status
        self._exited = True
        self._changed.set()
        if self._given_up:
            self._reap()

    def _no_longer_watched(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _signal(self, number: signal.Signals) -> None:
        # PermissionError: all that is left of the group runs as another user.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._popen.returncode is None:
                os.killpg(self._popen.pid, number)

    def _reap(self) -> None:
        self._popen.wait()


def start_failure(error: OSError) -> str:
    """Why a hook could not be started, with the remedy."""
    remedy = {
        errno.ENOEXEC: "begin it with a line such as #!/bin/sh",
        errno.ENOENT: "it or the interpreter that its first line names is not there",
        errno.EACCES: "let the service's user execute it and its interpreter, where no noexec is mounted",
        errno.ETXTBSY: "it is open for writing: write it under another name and rename it",
        errno.EMFILE: "raise LimitNOFILE in the service's unit",
        errno.EAGAIN: "too many processes: see TasksMax in the service's unit",
    }.get(error.errno or 0, "start it by hand: swanmesh hooks test")
    return f"cannot be started: {(error.strerror or str(error)).lower()}; {remedy}"


def _start(
    hook: Path, event: HookEvent, output: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    # In memory, not through a pipe: a hook that does not read it cannot hold anybody up.
    document = os.memfd_create("swanmesh-event", os.MFD_CLOEXEC)
    try:
        with open(document, "wb", closefd=False) as file:
            file.write(event.record)
        os.lseek(document, 0, os.SEEK_SET)
        return subprocess.Popen(
            [str(hook)],
            stdin=document,
            stdout=output,
            stderr=output,
            cwd="/",
            env={**environment, **event.environment()},
            umask=0o077,
            start_new_session=True,
        )
    finally:
        os.close(document)


def _error(status: int | None) -> str:
    if status is None:
        return "ended, nobody knows how"
    if status > 0:
        return f"exit status {status}"
    if status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return ""
