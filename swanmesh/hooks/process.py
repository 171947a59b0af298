"""One run of one hook: what it is told, and how that is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from swanmesh.hooks.queue import Turn
from swanmesh.programs.process import Run, run_program

TIMEOUT = 60.0
"""Seconds for one run of one hook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRun(Run):
    """How one run of one hook ended."""

    hook: Path
    turn: Turn


async def run_hook(
    hook: Path,
    turn: Turn,
    report: Callable[[HookRun], None],
    *,
    environment: Mapping[str, str],
    timeout: float = TIMEOUT,
) -> None:
    """As `run_program`, with the event as JSON on its standard input."""

    def of_hook(run: Run) -> None:
        report(
            HookRun(
                hook=hook,
                turn=turn,
                status=run.status,
                seconds=run.seconds,
                output=run.output,
                error=run.error,
            )
        )

    variables = {**environment, **_variables(turn)}
    given = msgspec.json.encode(turn.event)
    await run_program([str(hook)], given, of_hook, environment=variables, timeout=timeout)


def _variables(turn: Turn) -> dict[str, str]:
    return {
        "SWANMESH_EVENT": turn.event.kind,
        "SWANMESH_PEER": turn.event.peer,
        "SWANMESH_ADDRESSES": " ".join(turn.event.addresses),
        # A zero byte cannot be passed, and a reason comes from other programs.
        "SWANMESH_REASON": turn.event.reason.replace("\0", " "),
        "SWANMESH_SKIPPED": str(turn.skipped),
    }
