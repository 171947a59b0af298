"""When this host's certificate is to be replaced by a new one, and when that is tried again.

All times are seconds since the epoch, since certificates know no other. What there is to remember is what
came of the attempts so far (`Attempts`), which whoever acts keeps in a file: a service that is started again
goes on where it was, and never tries more often.
"""

from __future__ import annotations

import msgspec

from swanmesh.core.credentials.expiry import date, near
from swanmesh.core.model import Credentials, Problem

_DUE, _SPREAD = 2 / 3, 0.1
"""Share of a life after which a certificate is due, and the share that chance takes of that: a mesh that was
issued together does not ask its authority at once, and all have begun before a third of the life is left,
from where on an end is warned of (`expiry`)."""
_BASE, _CEILING, _FLOOR = 60.0, 6 * 3600.0, 5.0
"""Seconds after a first failure; doubled with each further one, up to the ceiling. Near the end an eighth of
what is left, but never less than the floor."""


class Attempts(msgspec.Struct, frozen=True, kw_only=True):
    """What came of renewing one certificate so far."""

    certificate: str = ""
    """SHA-256 of the certificate that was to be replaced, in hex."""
    failed: int = 0
    """Attempts in a row that came to nothing."""
    last: float = 0.0
    why: str = ""
    """In words, of the last one."""

    def failure(self, mine: Credentials, wall: float, why: str) -> Attempts:
        """One more that came to nothing."""
        before = self.of(mine)
        return Attempts(certificate=mine.certificate_id, failed=before.failed + 1, last=wall, why=why)

    def of(self, mine: Credentials) -> Attempts:
        """Those of this certificate: none, if they were another's."""
        return self if self.certificate == mine.certificate_id else Attempts()


def due(mine: Credentials) -> float:
    """When the certificate is to be replaced. The random part is the certificate's own: restarts of the
    service do not change it."""
    life = mine.not_after - mine.not_before
    return mine.not_before + life * (_DUE - _SPREAD * (0.1 + 0.9 * _share(mine)))


def next_attempt(mine: Credentials, attempts: Attempts, wall: float) -> float | None:
    """When a renewal is to be tried; None while this machine's clock is before the certificate's beginning,
    for then it is the clock that is wrong."""
    if wall < mine.not_before:
        return None
    attempts = attempts.of(mine)
    if not attempts.failed:
        return due(mine)
    # A clock that was set back since must not hold up the next attempt.
    last = min(attempts.last, wall)
    near = max(_FLOOR, (mine.not_after - last) / 8)
    # 2**16 is beyond the ceiling, and a float.
    wait = min(_BASE * 2.0 ** min(attempts.failed - 1, 16), _CEILING)
    if last < mine.not_after:
        wait = min(wait, near)
    return max(due(mine), last + wait * (0.8 + 0.4 * _share(mine)))


def overdue(mine: Credentials, attempts: Attempts, wall: float, *, automatic: bool) -> Problem | None:
    """What an operator should know of it, and do. `automatic`: whether a command is set that renews."""
    attempts, own = attempts.of(mine), mine.validities[0]
    if not mine.not_before <= wall < mine.not_after or wall < due(mine):
        return None
    if not automatic:
        if near(own, wall):
            return None  # that is told already
        words = f"is due for renewal since {date(due(mine))}, and no command is set that does it"
        remedy = "have a new one issued (`swanmesh enroll request`), or set renewal.command"
    elif attempts.failed:
        times = f"{attempts.failed} times, the last" if attempts.failed > 1 else "once,"
        words = f"its renewal failed {times} at {date(attempts.last)}: {attempts.why}"
        again = date(next_attempt(mine, attempts, wall) or wall)
        remedy = f"it is tried again at {again}; `swanmesh cert renew --now` tries at once"
    else:
        return None
    return Problem(own.file, own.key, own.subject, words, remedy)


def _share(mine: Credentials) -> float:
    """A number from 0 to 1 that chance gave this certificate."""
    return int(mine.certificate_id[:8], 16) / 2**32
