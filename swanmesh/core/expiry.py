"""When certificates begin and end, and what is said of it: 30, 7 and 1 days before, and after an end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from swanmesh.core.model import Problem, Validity
from swanmesh.core.reasons import Reason

_DAY = 86400.0
_STAGES = (30 * _DAY, 7 * _DAY, 1 * _DAY, 0.0)
"""Seconds left at which an end is told (again)."""
_REMEDY = "have a new one issued, and put it in its place: it is taken up from the files"


def expiring(validities: Iterable[Validity], wall: float) -> list[Problem]:
    """What is wrong, or soon will be, with certificates at that time (seconds since the epoch)."""
    found = []
    for one in validities:
        left = one.not_after - wall
        if wall < one.not_before:
            words = f"is not valid before {_date(one.not_before)}; this machine's clock says {_date(wall)}"
            found.append(Problem(one.file, one.key, one.subject, words, "set the clock: timedatectl"))
        elif left <= 0:
            words = f"has ended on {_date(one.not_after)}: no peer accepts it any more"
            found.append(Problem(one.file, one.key, one.subject, words, _REMEDY))
        elif left <= _STAGES[0]:
            found.append(Problem(one.file, one.key, one.subject, f"ends in {_days(left)}", _REMEDY))
    return found


@dataclass(slots=True)
class ExpiryNews:
    """Which ends have come nearer since they were last told."""

    _told: dict[Validity, int] = field(default_factory=dict)

    def take(self, validities: Iterable[Validity], wall: float) -> list[Reason]:
        """One reason for each certificate that entered another stage; each stage is told once."""
        news, told = [], {}
        for one in validities:
            left = one.not_after - wall
            told[one] = stage = sum(left <= limit for limit in _STAGES)
            if stage > self._told.get(one, 0):
                ends = f"ends in {_days(left)}" if left > 0 else f"has ended on {_date(one.not_after)}"
                news.append(Reason("certificate-expiring", f"{one.subject} ({one.file}) {ends}; {_REMEDY}"))
        self._told = told
        return news


def _days(seconds: float) -> str:
    days = round(seconds / _DAY)
    return f"{days} days" if days > 1 else f"{seconds / 3600:.0f} hours"


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
