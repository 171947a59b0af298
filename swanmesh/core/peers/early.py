"""Peers that tried to reach this host before its files knew them: they need not be waited for.

The pair's initiator may have been refused many times by then, and sits out its backoff. Whoever was refused
is ready, so the first word can be ours.
"""

from __future__ import annotations

from collections import OrderedDict

from swanmesh.core.model import AddressPair

_KEPT = 4096
"""Anybody may send an IKE_SA_INIT with any source address: the oldest are forgotten."""
_VALID = 600.0
"""Seconds."""


class EarlyPeers:
    """Who was refused for want of a connection, and when."""

    def __init__(self) -> None:
        self._at: OrderedDict[tuple[str, str], float] = OrderedDict()

    def note(self, local: str, remote: str, now: float) -> None:
        self._at[local, remote] = now
        self._at.move_to_end((local, remote))
        if len(self._at) > _KEPT:
            self._at.popitem(last=False)

    def take(self, pair: AddressPair, now: float) -> bool:
        """Whether the peer's address was refused at ours lately. Each is answered once."""
        if not self._at:
            return False
        at = self._at.pop((str(pair.local), str(pair.remote)), None)
        return at is not None and now - at <= _VALID
