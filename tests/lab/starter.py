"""Starts many Python processes at the cost of a fork each.

Run as `python -m tests.lab.starter FD`: imports the whole of swanmesh once, then forks a child for each
request that comes on the socket FD. Each child is a process of its own, in its own namespace, and runs the
very entry point that the `swanmesh` command runs. In user-mode Linux a start of Python with the imports of a
controller takes most of a second, a fork a few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.lab.namespaces import Namespace, set_namespace

_PR_SET_CHILD_SUBREAPER = 36
_MESSAGE = 1 << 16


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
                (sys.executable, "-m", "tests.lab.starter", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],
            )
        self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

    def close(self) -> None:
        """Ends the starter; what it started goes on."""
        self._socket.close()
        self._process.wait(timeout=10)

    def _receive(self) -> str:
        reply = self._socket.recv(_MESSAGE).decode()
        if not reply:
            raise RuntimeError(f"the starter ended with status {self._process.wait(timeout=10)}")
        return reply


def _preload() -> None:
    """Imports what a controller or a command may need, so that children only share it."""
    package = importlib.import_module("swanmesh")
    for module in pkgutil.walk_packages(package.__path__, "swanmesh."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("rich.console", "rich.table", "rich.live"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or a child's collector would touch, and so copy, every page of ours


def _serve(requests: socket.socket) -> list[str] | None:
    """Forks for each request. Returns the arguments in a child, None when the client has gone."""
    while True:
        message, fds, _, _ = socket.recv_fds(requests, _MESSAGE, 3)
        if not message:
            return None
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            child = os.fork()
            if child:
                os.write(writer, str(child).encode())
                os._exit(0)
            for fd in (reader, writer, requests.detach()):
                os.close(fd)
            return _become(json.loads(message), fds)
        os.waitpid(middle, 0)
        requests.send(os.read(reader, 32))  # only now that the child is the client's
        os.close(reader)
        os.close(writer)
        for fd in fds:
            os.close(fd)


def _become(request: dict[str, object], fds: list[int]) -> list[str]:
    stdout, stderr, network = fds
    os.setsid()
    set_namespace(network)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for fd in fds:
        os.close(fd)
    arguments, environment, cwd = request["arguments"], request["environment"], request["cwd"]
    assert isinstance(arguments, list) and isinstance(environment, dict) and isinstance(cwd, str)
    os.environ.update(environment)
    os.chdir(cwd)
    return arguments


def main() -> None:
    """The starter's process."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(requests.fileno(), False)
    _preload()
    requests.send(b"ready")
    arguments = _serve(requests)
    if arguments is None:
        return
    sys.argv = ["swanmesh", *arguments]
    entry = importlib.import_module("swanmesh.cli.main").entry
    sys.exit(entry())


if __name__ == "__main__":
    main()
