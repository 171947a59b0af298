"""Hooks of a test's own, and what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from swanmesh.core.events import MeshEvent
from swanmesh.hooks.process import HookRun
from swanmesh.hooks.runner import HookNotice, Hooks


def write_hook(path: Path, text: str, *, mode: int = 0o755) -> Path:
    """A shell script, ready to run."""
    path.parent.mkdir(exist_ok=True, mode=0o755)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def event(kind: str, peer: str = "", reason: str = "", *addresses: str) -> MeshEvent:
    return MeshEvent(kind=kind, time=1.5, peer=peer, reason=reason, addresses=(*addresses,))


@dataclass
class Reports:
    """Everything that hooks were reported to do."""

    runs: list[HookRun] = field(default_factory=list)
    notices: list[HookNotice] = field(default_factory=list)

    def take(self, report: HookRun | HookNotice) -> None:
        if isinstance(report, HookRun):
            self.runs.append(report)
        else:
            self.notices.append(report)

    def errors(self) -> list[str]:
        return [run.error for run in self.runs if run.error]


@contextlib.asynccontextmanager
async def hooks_of(
    directory: Path, *, parallel: int = 8, timeout: float = 30.0
) -> AsyncIterator[tuple[Hooks, Reports]]:
    """Hooks, closed at the end whatever still runs."""
    reports = Reports()
    hooks = Hooks(directory, {}, reports.take, parallel=parallel, timeout=timeout)
    try:
        yield hooks, reports
    finally:
        await hooks.close(0.2)


async def until(condition: Callable[[], object], why: str, timeout: float = 20.0) -> None:
    """Returns once `condition` holds. Raises TimeoutError, naming `why`."""
    try:
        async with asyncio.timeout(timeout):
            while not condition():  # noqa: ASYNC110 - a process's doings set no event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise TimeoutError(f"after {timeout:g} s still waiting until {why}") from None


def alive(pid_file: Path) -> bool:
    """Whether the process whose number the file holds runs; a zombie does not."""
    try:
        # A number that is not written yet would make it /proc/stat.
        stat = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def end(pid_file: Path) -> None:
    """What a test has left running on purpose."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def written(path: Path) -> list[str]:
    """Lines of a file that a hook writes; none as long as it is not there."""
    return path.read_text().splitlines() if path.exists() else []
