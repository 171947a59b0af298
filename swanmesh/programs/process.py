"""A program of somebody else's: started without rights of its own, given its time, ended with its group.

Its output goes into files without a name and of bounded size, read when it has ended: nobody listens
meanwhile, and who floods it or keeps it open holds up nothing. What a program leaves in its process group
ends soon after it; what is to live on leaves the group (`setsid … &`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import functools
import os
import resource
import signal
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from swanmesh.core.model import shown

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL, and then until the kernel has let go of the process."""
LEFT = 5.0
"""Seconds that others of its process group have after it. None at all would hit `setsid … &` before that has
left the group."""
FILE_SIZE = 4 * 1024 * 1024
"""Bytes that any file may have which a program writes, its output included."""
OUTPUT = 8 * 1024
"""Bytes of the output that are shown: its end, where errors stand. Escaped they still make one entry of the
journal (LineMax in journald.conf(5))."""

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
"""All that programs get beside what is for them, so that they do the same however the service was started."""

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_CAPABILITIES = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process; capset(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one run of a program ended."""

    status: int | None = None
    """Exit status; negative: the signal that killed it; None if it could not be started."""
    seconds: float = 0.0
    answer: bytes = b""
    """Its standard output, where that was asked for apart from what it says to people."""
    output: tuple[str, ...] = ()
    """What it wrote, line by line, printable, and bounded."""
    error: str = ""
    """What went wrong, in words; empty if nothing did."""


async def run_program(
    command: Sequence[str],
    given: bytes,
    report: Callable[[Run], None],
    *,
    environment: Mapping[str, str],
    timeout: float,
    answers: bool = False,
) -> None:
    """Until it has ended by itself, or is ended: at its time limit, or cancelled, which is reported with the
    words of the cancelling. Cancelled once more, it is killed at once and not reported.

    `given`: its standard input. `answers`: its standard output is for programs, and only its errors are for
    people.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    with contextlib.ExitStack() as files:
        try:
            document = files.enter_context(_nameless_file(given))
            output = files.enter_context(_nameless_file())
            answer = files.enter_context(_nameless_file()) if answers else output
            process = _Process(command, document, answer, output, {**_ENVIRONMENT, **environment})
        except (OSError, subprocess.SubprocessError) as error:
            report(Run(error=_start_failure(error)))
            return
        reason, cancelled = "", None
        try:
            try:
                if not await process.ended(timeout):
                    reason = f"not done after {timeout:g} s"
            except asyncio.CancelledError as error:
                reason, cancelled = str(error) or "broken off", error
            if reason:
                reason += await process.end()
            status = process.reap()
            report(
                Run(
                    status=status,
                    seconds=loop.time() - began,
                    answer=os.pread(answer.fileno(), FILE_SIZE, 0) if answers else b"",
                    output=_lines(output),
                    error=reason or _failure(status),
                )
            )
            if not reason:
                await process.group_ended(LEFT)
        finally:
            process.close()
    if cancelled is not None:
        raise cancelled


class _Process:
    """Leader of a session and process group of its own."""

    def __init__(
        self,
        command: Sequence[str],
        document: BinaryIO,
        answer: BinaryIO,
        output: BinaryIO,
        variables: dict[str, str],
    ) -> None:
        """Raises OSError or SubprocessError if it cannot be started."""
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._group_gone = False
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            # Inherited from whoever started the service: the kernel would reap it and keep the status.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # preexec_fn runs in a fork that another thread's lock may stay locked in: it makes system calls only.
        self._popen = subprocess.Popen(
            list(command),
            stdin=document,
            stdout=answer,
            stderr=output,
            cwd="/",
            env=variables,
            umask=0o077,
            start_new_session=True,
            preexec_fn=_confinement(),  # noqa: PLW1509
        )
        try:
            self._pidfd = os.pidfd_open(self._popen.pid)
        except OSError:
            # Out of descriptors: nobody would notice its end.
            self._signal(signal.SIGKILL)
            self._popen.wait()
            raise
        self._loop.add_reader(self._pidfd, self._on_exit)

    async def ended(self, timeout: float) -> bool:
        """Whether it has, after so many seconds at the latest."""
        await asyncio.wait([self._exited], timeout=timeout)
        return self._exited.done()

    async def end(self) -> str:
        """The whole group, which may clean up first. Returns what became of it, in words."""
        self._signal(signal.SIGTERM)
        await self.ended(GRACE)
        self._signal(signal.SIGKILL)
        gone = await self.ended(GRACE)
        return ": ended with all of its processes" if gone else ": cannot be killed, it hangs in the kernel"

    def reap(self) -> int | None:
        """The status, if it has ended. From now on the group can be seen to be empty."""
        return self._popen.poll()

    async def group_ended(self, timeout: float) -> None:
        """Or so many seconds are over. Only asking tells; and while that is done so often, the group's number
        cannot pass to strangers."""
        until = self._loop.time() + timeout
        while self._signal(0) and self._loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """End what is left of the group."""
        self._signal(signal.SIGKILL)
        self._popen.poll()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._exited.set_result(None)

    def _signal(self, number: int) -> bool:
        """To the whole group. Returns whether there is one."""
        # PermissionError: all that is left of it runs as another user.
        with contextlib.suppress(PermissionError):
            try:
                if not self._group_gone:
                    os.killpg(self._popen.pid, number)
            except ProcessLookupError:
                self._group_gone = True
        return not self._group_gone


def _nameless_file(content: bytes = b"") -> BinaryIO:
    """In memory: a full disk keeps nobody from being told, and who reads nothing holds up nobody."""
    file = os.fdopen(os.memfd_create("swanmesh-program"), "w+b", buffering=0)
    file.write(content)
    file.seek(0)
    return file


@functools.cache
def _confinement() -> Callable[[], None]:
    """What the child does before it becomes the program: it bounds its files, and gives up all capabilities.

    root would get them back from the bounding set by executing anything, and to take them out of that needs
    CAP_SETPCAP, which the service's unit withholds. With no_new_privs the kernel gives back nothing that was
    given up (cap_bprm_creds_from_file in security/commoncap.c), and giving up needs no capability.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = FILE_SIZE if most == resource.RLIM_INFINITY else min(FILE_SIZE, most)

    def confine() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.capset(_CAPABILITIES, bytes(24)):
            raise OSError(ctypes.get_errno(), "capset")

    return confine


def _lines(output: BinaryIO) -> tuple[str, ...]:
    """The end of what was written, with nothing that could steer a terminal or forge a line of the log."""
    before = max(0, os.fstat(output.fileno()).st_size - OUTPUT)
    text = os.pread(output.fileno(), OUTPUT, before).decode(errors="backslashreplace")
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").expandtabs().split("\n")]
    cut = (f"({before} bytes before this)",) if before else ()
    return (*cut, *(shown(line, OUTPUT) for line in lines if line))


def _failure(status: int | None) -> str:
    if status is None:
        return "its end is not known"
    if status >= 0:
        return f"exit status {status}" if status else ""
    if -status == signal.SIGXFSZ:
        return f"killed by SIGXFSZ: it wrote more than {FILE_SIZE // 1024**2} MiB"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _start_failure(error: OSError | subprocess.SubprocessError) -> str:
    """Why a program could not be started, with the remedy."""
    if not isinstance(error, OSError):
        return "cannot be started: its rights cannot be reduced; allow capset in the unit's SystemCallFilter"
    remedy = {
        errno.ENOEXEC: "begin it with a line such as #!/bin/sh",
        errno.ENOENT: "it or the interpreter that its first line names is not there",
        errno.EACCES: "let the service's user execute it and its interpreter, where no noexec is mounted",
        errno.ETXTBSY: "it is open for writing: write it under another name and rename it",
        errno.EMFILE: "raise LimitNOFILE in the service's unit",
        errno.EAGAIN: "too many processes: see TasksMax in the service's unit",
    }.get(error.errno or 0, "start it by hand")
    return f"cannot be started: {(error.strerror or str(error)).lower()}; {remedy}"
