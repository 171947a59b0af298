"""What holds for a while instead of what the files say: a policy on trial, and `disable`.

Nothing is written into people's files for it, so that going back takes no more than forgetting it: whoever
was killed, whatever is broken, and however full the disk is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from swanmesh.core.settings.policy import Policy

HOST = ""
"""Stands for the host's own policy where peers go by their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A policy that goes back by itself unless it is confirmed, which is to write it into the files.

    It holds only as long as the file of whom it is for says what it said when it began: whoever writes
    another policy there by hand is not overruled."""

    policy: Policy
    before: Mapping[str, Policy | None] = field(hash=False)
    """By peer's name, or HOST, what its file states; None: the peer's file states none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """All of that in force now."""

    disabled: bool = False
    """Nothing is encrypted and nothing is refused, until `enable`."""
    trial: Trial | None = None

    def policy(self, name: str, stated: Policy | None) -> Policy | None:
        """What holds for a peer of this name, or HOST, where its file states `stated`."""
        trial = self.trial
        if trial is not None and name in trial.before and trial.before[name] == stated:
            return trial.policy
        return stated


NOTHING = Override()


def left(within: float, *, slept: float, wall: float) -> float:
    """Seconds that a trial of `within` seconds has left; none if it is over.

    `slept` is how far the clock that counts since boot (time asleep too) has gone since it began, `wall` how
    far the wall's. A boot in between sets back the first, and an administrator or a dead battery the second:
    each is believed where it says that time has passed, and where neither does the trial is over."""
    passed = max(slept, wall)
    return max(0.0, within - passed) if passed >= 0 else 0.0
