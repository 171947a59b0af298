"""What was measured, as a table for people and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Line:
    """One figure of ours, and what the other way takes for the same where there is one."""

    what: str
    ours: float
    theirs: float | None = None
    unit: str = "s"
    goal: str = ""
    """What is demanded of it, in words; empty if nothing is."""
    met: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times as much the others take."""
        return None if self.theirs is None or not self.ours else self.theirs / self.ours


_DEMANDED_FROM = 5000
"""Peers: what is demanded is demanded of a large mesh."""


def verdict(count: int, met: bool) -> bool | None:
    """`met` if so many peers are enough for the demand to hold."""
    return met if count >= _DEMANDED_FROM else None


@dataclass
class Results:
    """Lines by section, in the order in which they were measured."""

    sections: dict[str, list[Line]] = field(default_factory=dict)

    def add(self, section: str, *lines: Line) -> None:
        self.sections.setdefault(section, []).extend(lines)

    def table(self) -> str:
        """For a person; what is demanded is marked met or NOT MET."""
        parts = []
        for section, lines in self.sections.items():
            rows: list[tuple[str, ...]] = [(section.upper(), "ours", "theirs", "theirs/ours", "")]
            rows += [_row(line) for line in lines]
            parts.append("\n".join(_columns(rows)))
        return "\n\n".join(parts)

    def write_json(self, path: Path) -> None:
        document = {
            "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": {
                "cpus": os.cpu_count(),
                "kernel": platform.release(),
                "python": sys.version.split()[0],
            },
            "sections": {
                section: [dataclasses.asdict(line) | {"ratio": line.ratio} for line in lines]
                for section, lines in self.sections.items()
            },
        }
        path.write_text(json.dumps(document, indent=2) + "\n")


def _row(line: Line) -> tuple[str, ...]:
    verdict = "" if line.met is None else f"{'met' if line.met else 'NOT MET'}: {line.goal}"
    return (
        f"  {line.what}",
        _amount(line.ours, line.unit),
        "" if line.theirs is None else _amount(line.theirs, line.unit),
        "" if line.ratio is None else f"{line.ratio:.3g}",
        "; ".join(filter(None, (verdict, line.note))),
    )


def _amount(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:,.0f} {unit}" if value >= 1000 or value == int(value) else f"{value:.3g} {unit}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if 0 < index < 4 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
