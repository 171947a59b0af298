"""Every peer rekeyed, one after another: so a change of the data path reaches associations that stand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from swanmesh.core.mesh import Mesh

_PACE = 0.1
"""Seconds between two peers: each costs charon some milliseconds here and there."""


class Rekeying:
    """Goes through all that are up, at a pace that nobody feels."""

    def __init__(self, mesh: Mesh, rekey: Callable[[str], object]) -> None:
        """`rekey` rekeys the peer of this name."""
        self._mesh, self._rekey = mesh, rekey
        self._left: list[str] = []
        self._next: asyncio.TimerHandle | None = None

    def begin(self) -> int:
        """Every peer that is up, in an order of this host's own: others may be asked for the same at the same
        time. Begun again, it begins anew. Returns how many they are."""
        state = self._mesh.state
        self._left = [p.name for p in state.peers() if any(pair.up for pair in state.pairs.of(p.name))]
        random.SystemRandom().shuffle(self._left)
        count = len(self._left)
        self.close()
        self._go_on()
        return count

    def seconds(self, count: int) -> float:
        """What so many take."""
        return count * _PACE

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def _go_on(self) -> None:
        self._next = None
        if not self._left:
            return
        state = self._mesh.state
        if state.charon.reachable and state.peer(name := self._left.pop()) is not None:
            self._rekey(name)
        self._next = asyncio.get_running_loop().call_later(_PACE, self._go_on)
