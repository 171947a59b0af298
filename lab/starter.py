"""Starts many Python processes at the cost of a fork each; see starter_process for the other side."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from lab.namespaces import Namespace

_PR_SET_CHILD_SUBREAPER = 36
MESSAGE = 1 << 16
"""Bytes of a request or a reply at most."""


class ForkedProcess:
    """A process that the starter forked; the part of subprocess.Popen that the lab needs."""

    def __init__(self, pid: int, args: Sequence[str]) -> None:
        self.pid = pid
        self.args = args
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status if it has ended (negative: the signal that ended it), else None."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.005)
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL unless it has ended."""
        self.send_signal(signal.SIGKILL)


class Starter:
    """The client's side: one starter process, for the life of this one."""

    def __init__(self) -> None:
        # The starter forks twice, and the orphans become our children: poll and wait just work.
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "lab.starter_process", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the terminal is not for it
                cwd=Path(__file__).parents[1],
            )
        self._receive()

    def start(
        self,
        arguments: Sequence[str],
        *,
        namespace: Namespace,
        stdout: IO[str] | IO[bytes],
        stderr: IO[str] | IO[bytes],
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> ForkedProcess:
        """Runs `swanmesh ARGUMENTS` in `namespace`, in a session of its own, with no standard input."""
        request = {
            "arguments": list(arguments),
            "environment": dict(environment or {}),
            "cwd": str(cwd or Path.cwd()),
        }
        network = os.open(namespace.path, os.O_RDONLY)
        try:
            fds = [stdout.fileno(), stderr.fileno(), network]
            socket.send_fds(self._socket, [json.dumps(request).encode()], fds)
        finally:
            os.close(network)
        return ForkedProcess(int(self._receive()), ["swanmesh", *arguments])

    def _receive(self) -> str:
        reply = self._socket.recv(MESSAGE).decode()
        if not reply:
            raise RuntimeError(f"the starter ended with status {self._process.wait(timeout=10)}")
        return reply
