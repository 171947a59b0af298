"""Network namespaces: made, entered, and removed with all that runs in them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.waiting import wait_until

PREFIX = "swanlab-"
"""Every namespace of the lab begins so, and no other may: left-overs are found by it."""

FOLDER = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def set_namespace(fd: int) -> None:
    """Moves the calling thread into the network namespace that `fd` refers to (setns(2))."""
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


@dataclass(frozen=True)
class Namespace:
    """A named network namespace, as `ip netns` knows it."""

    name: str

    @property
    def path(self) -> Path:
        return FOLDER / self.name

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside meanwhile, and so are the sockets and processes that it makes.

        Spares an `ip netns exec` for each command, which costs as much as many commands themselves.
        """
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        inside = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            set_namespace(inside)
            try:
                yield
            finally:
                set_namespace(before)
        finally:
            os.close(inside)
            os.close(before)

    def ip(self, *lines: str) -> None:
        """Runs `ip` commands inside, all in one process. Raises RuntimeError with the failing command."""
        batch("ip", "-n", self.name, lines=lines)

    def tc(self, *lines: str) -> None:
        """As `ip`, for `tc`."""
        batch("tc", "-n", self.name, lines=lines)

    def tc_show(self, *words: str) -> str:
        """What a `tc` command says."""
        command = ("tc", "-n", self.name, *words)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def processes(self) -> frozenset[int]:
        """Process ids whose network namespace this is."""
        return frozenset(int(pid) for pid in _ip_netns("pids", self.name).split())

    def remove(self) -> None:
        """Kills what runs inside, waits until it is gone, and removes the name."""

        def emptied() -> bool:
            found = [pid for pid in self.processes() if not _is_zombie(pid)]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        wait_until(emptied, 10, f"namespace {self.name} has no process")
        _ip_netns("delete", self.name)


def batch(*command: str, lines: Iterable[str]) -> None:
    """Feeds `lines` to `ip -batch` or `tc -batch`. Raises RuntimeError with what it said."""
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run([*command, "-batch", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\nof these commands:\n{text}")


def _ip_netns(*words: str) -> str:
    command = ("ip", "netns", *words)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def create(names: Iterable[str]) -> list[Namespace]:
    """Makes a namespace with the lab's prefix for each name, loopback up."""
    spaces = [Namespace(PREFIX + name) for name in names]
    batch("ip", lines=[f"netns add {space.name}" for space in spaces])
    for space in spaces:
        space.ip("link set lo up")
    return spaces


def left_over() -> list[Namespace]:
    """The lab's namespaces that exist, be they a crashed run's or a running one's."""
    if not FOLDER.is_dir():
        return []
    return [Namespace(path.name) for path in sorted(FOLDER.iterdir()) if path.name.startswith(PREFIX)]


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
