"""A host with a share of a CPU only: by a control group where the kernel has version 2 of them, and else by
stopping its processes for a part of each period."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

CGROUPS = Path("/sys/fs/cgroup")
_PREFIX = "swanlab-"
_PERIOD = 0.1
"""Seconds, of the group's quota as of the stopping."""


class Diet(Protocol):
    """One way to hold a host's processes back."""

    def __init__(self, name: str) -> None: ...

    def begin(self, pids: Iterable[int], share: float) -> None:
        """From now on these, and what they start, get `share` of a CPU together."""

    def add(self, pid: int) -> None:
        """One more, started since."""

    def end(self) -> None:
        """They get what they can take."""


def diet(name: str) -> Diet:
    """The way that this kernel has, for a host of this name."""
    controllers = CGROUPS / "cgroup.controllers"
    usable = controllers.exists() and "cpu" in controllers.read_text().split()
    return Group(name) if usable else DutyCycle(name)


def clean_up() -> None:
    """Removes the groups of hosts that are gone."""
    for group in CGROUPS.glob(f"{_PREFIX}*"):
        with contextlib.suppress(
            OSError
        ):  # its processes are still on their way out; the next run removes it
            group.rmdir()


class Group:
    """cpu.max of a control group (Documentation/admin-guide/cgroup-v2.rst)."""

    def __init__(self, name: str) -> None:
        self._folder = CGROUPS / f"{_PREFIX}{name}"

    def begin(self, pids: Iterable[int], share: float) -> None:
        (CGROUPS / "cgroup.subtree_control").write_text("+cpu")
        self._folder.mkdir(exist_ok=True)
        (self._folder / "cpu.max").write_text(f"{round(share * _PERIOD * 1e6)} {round(_PERIOD * 1e6)}")
        for pid in pids:
            self.add(pid)

    def add(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            (self._folder / "cgroup.procs").write_text(str(pid))

    def end(self) -> None:
        (self._folder / "cpu.max").write_text("max")


class DutyCycle:
    """SIGSTOP and SIGCONT by turns. Coarser than a group: it stops even what would have slept."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pids: set[int] = set()
        self._share = 1.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, pids: Iterable[int], share: float) -> None:
        self.end()
        self._pids, self._share = set(pids), share
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, name=f"starving {self._name}", daemon=True)
        self._thread.start()

    def add(self, pid: int) -> None:
        self._pids = self._pids | {pid}

    def end(self) -> None:
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._ended.is_set():
            self._signal(signal.SIGSTOP)
            self._ended.wait((1 - self._share) * _PERIOD)
            self._signal(signal.SIGCONT)
            self._ended.wait(self._share * _PERIOD)

    def _signal(self, number: int) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
