"""How busy this machine's processors are (proc(5), /proc/stat)."""

from __future__ import annotations

from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE = (3, 4)
"""Columns of the time without work: idle, iowait."""
_COUNTED = 8
"""Columns up to `steal`; `guest` is in `user` already."""

Times = tuple[tuple[int, int], ...]
"""Of each processor: ticks in which it worked, and all."""


def times(path: Path = _STAT) -> Times:
    """Since boot. Raises OSError where the kernel does not show it."""
    found = []
    for line in path.read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(field) for field in fields[:_COUNTED]]
            found.append((sum(ticks) - sum(ticks[place] for place in _IDLE), sum(ticks)))
    return tuple(found)


def busy(before: Times, after: Times) -> tuple[float, ...]:
    """The share of the time in between that each processor worked."""
    return tuple(
        max(0, worked - had_worked) / max(1, total - had)
        for (had_worked, had), (worked, total) in zip(before, after, strict=False)
    )
