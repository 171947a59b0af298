"""When certificates begin and end, and what is said of it: 30, 7 and 1 days before, and after an end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from swanmesh.core.model import Credentials, Peer, Problem, Validity
from swanmesh.core.observed import SeenCertificate
from swanmesh.core.reasons import NONE, Reason

_DAY = 86400.0
_STAGES = ((30 * _DAY, 1 / 3), (7 * _DAY, 1 / 8), (1 * _DAY, 1 / 24), (0.0, 0.0))
"""Seconds left at which an end is told (again), and the share of a life that this is at most where a program
renews it at two thirds of its life: before, there is no cause for alarm."""
_FORGOTTEN = 60 * _DAY
"""Seconds after an end until nobody needs to know any more that it was told."""
_REMEDY = "have a new one issued, and put it in its place: it is taken up from the files"
_THERE = "have it renewed there: `swanmesh cert renew`, or see what its `swanmesh status` says"


def expiring(validities: Iterable[Validity], wall: float, *, automatic: bool = False) -> list[Problem]:
    """What is wrong, or soon will be, with certificates at that time (seconds since the epoch). `automatic`:
    whether a program renews them."""
    found = []
    for one in validities:
        left = one.not_after - wall
        if wall < one.not_before:
            words = f"is not valid before {date(one.not_before)}; this machine's clock says {date(wall)}"
            found.append(Problem(one.file, one.key, one.subject, words, "set the clock: timedatectl"))
        elif left <= 0:
            words = f"has ended on {date(one.not_after)}: no peer accepts it any more"
            found.append(Problem(one.file, one.key, one.subject, words, _REMEDY))
        elif near(one, wall, automatic=automatic):
            found.append(Problem(one.file, one.key, one.subject, f"ends in {_days(left)}", _REMEDY))
    return found


@dataclass(slots=True)
class ExpiryNews:
    """Which ends have come nearer since they were last told."""

    told: dict[str, tuple[int, float]] = field(default_factory=dict)
    """The stage that was told last of each certificate, and its end: what is worth keeping over a restart."""

    def take(self, validities: Iterable[Validity], wall: float, *, automatic: bool = False) -> list[Reason]:
        """One reason for each certificate that entered another stage; each stage is told once."""
        return [reason for _, reason in self.entered(validities, wall, automatic=automatic)]

    def entered(
        self, validities: Iterable[Validity], wall: float, *, automatic: bool = False
    ) -> list[tuple[Validity, Reason]]:
        """The same with the certificate of each."""
        news = []
        for one in validities:
            left = one.not_after - wall
            stage = sum(left <= limit for limit in _limits(one, automatic))
            which = f"{one.file} {one.subject} {one.not_after:.0f}"
            if stage > self.told.get(which, (0, 0.0))[0]:
                self.told[which] = stage, one.not_after
                ends = f"ends in {_days(left)}" if left > 0 else f"has ended on {date(one.not_after)}"
                where, remedy = (f" ({one.file})", _REMEDY) if one.key else ("", _THERE)
                reason = Reason("certificate-expiring", f"{one.subject}{where} {ends}; {remedy}")
                news.append((one, reason))
        self.told = {which: each for which, each in self.told.items() if each[1] > wall - _FORGOTTEN}
        return news


def of_peer(peer: Peer, seen: SeenCertificate) -> Validity:
    """The certificate that a peer showed last."""
    return Validity(
        file=peer.name,
        key="",
        subject=f"the certificate of {peer.title} (serial {seen.serial:x})",
        not_before=seen.not_before,
        not_after=seen.not_after,
    )


def peer_renewed(before: Sequence[SeenCertificate], after: SeenCertificate) -> Reason:
    """That a peer shows another certificate than those seen before; empty if it is not a newer one."""
    if not before or after.not_after <= (last := max(one.not_after for one in before)):
        return NONE
    words = f"it shows another certificate (serial {after.serial:x}) until {date(after.not_after)}"
    return Reason("certificate-renewed", f"{words}, before until {date(last)}")


def in_words(mine: Credentials, wall: float) -> str:
    """This host's certificate in one line, for who asks why a peer did not take it."""
    subject = mine.validities[0].subject if mine.validities else "our certificate"
    if wall < mine.not_before:
        state = f"is not valid before {date(mine.not_before)}, and it is {date(wall)} here"
    elif wall >= mine.not_after:
        state = f"has ended on {date(mine.not_after)}"
    else:
        state = f"holds until {date(mine.not_after)} by this host's clock"
    return f"{subject} (serial {mine.serial:x}) {state}"


def near(one: Validity, wall: float, *, automatic: bool = False) -> bool:
    """Whether its end is to be spoken of."""
    return one.not_after - wall <= _limits(one, automatic)[0]


def renewed(before: Validity, after: Validity) -> Reason:
    """That one certificate took the place of another."""
    words = (
        f"{after.subject} ({after.file}) until {date(after.not_after)}, before until {date(before.not_after)}"
    )
    return Reason("certificate-renewed", words)


def _limits(one: Validity, automatic: bool) -> list[float]:
    life = one.not_after - one.not_before
    return [min(seconds, share * life) if automatic else seconds for seconds, share in _STAGES]


def _days(seconds: float) -> str:
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    days = round(seconds / _DAY)
    return f"{days} days" if days > 1 else f"{seconds / 3600:.0f} hours"


def date(moment: float) -> str:
    """A moment for people, to the minute."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
