"""What the charon at hand can do, and what follows for the terms that it is given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from swanmesh.core.model import ConnectionSettings, Problem
from swanmesh.core.settings.proposals import unsupported, usable

_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_IGNORES_ESP = (6, 0, 1)
_QUIETER = 12


@dataclass(frozen=True, slots=True)
class Abilities:
    """Of one charon; empty as long as none has answered."""

    version: str = ""
    """Such as 5.9.8."""
    algorithms: frozenset[str] | None = None
    """Names of what it has plugins for (`get-algorithms`); None: it is not known."""

    @property
    def esp_shows_life(self) -> bool:
        """Whether ESP that comes in spares the peer the question whether it lives. From 6.0.1 on it does so
        only if it is encapsulated in UDP (sa/ike_sa.c, get_use_time)."""
        match = _NUMBERS.match(self.version)
        return match is None or tuple(int(number or 0) for number in match.groups()) < _IGNORES_ESP


UNKNOWN = Abilities()


def dpd_delay(how: ConnectionSettings, charon: Abilities) -> int:
    """Seconds of silence after which charon asks the peer for a sign of life.

    Where ESP that comes in counts as one, only silent pairs are asked, and asking soon finds the dead soon.
    Where it does not, every pair is asked for ever: 5,000 busy ones at 5 s make 1,000 requests a second, and
    whoever blocks IKE for a while ends associations that carry data. There charon's question is the slow
    safety net: of a pair that carries data the kernel's counters tell sooner that nothing comes; of one
    that carries none nobody misses an answer. Both ends ask, and an answer counts at both, so 5,000 pairs at
    60 s make 80 requests a second at most.
    """
    return how.dpd_delay if how.encap or charon.esp_shows_life else how.dpd_delay * _QUIETER


def proposals(how: ConnectionSettings, charon: Abilities) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those for IKE and for ESP that this charon can carry out."""
    return (
        usable(how.ike_proposals, charon.algorithms, ike=True),
        usable(how.esp_proposals, charon.algorithms, ike=False),
    )


def problems(how: ConnectionSettings, charon: Abilities, file: str) -> Iterator[Problem]:
    """What the settings in `file` ask for and this charon cannot do."""
    if charon.algorithms is None:
        return
    for key, listed, ike in (
        ("connection.ike_proposals", how.ike_proposals, True),
        ("connection.esp_proposals", how.esp_proposals, False),
    ):
        missing = [unsupported(proposal, charon.algorithms, ike=ike) for proposal in listed]
        left_out = "it is left out" if [] in missing else "there is no other, so nothing can be negotiated"
        for index, names in enumerate(missing):
            if names:
                yield Problem(
                    file=file,
                    key=f"{key}[{index}]",
                    value=listed[index],
                    message=f"charon {charon.version} here cannot do {', '.join(names)}: {left_out}",
                    remedy="install the strongSwan plugin that has it, or take the proposal out",
                )
