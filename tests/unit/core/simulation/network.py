"""The simulated network between charons: latency, loss, repetition, partitions of either direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.unit.core.simulation.clock import Clock

if TYPE_CHECKING:
    from tests.unit.core.simulation.holder import Holder


class Network:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.owners: dict[str, Holder] = {}
        """Who answers at an address."""
        self.latency = (0.0005, 0.02)
        self.loss = 0.0
        self.repeat = 0.0
        """Probability that a packet arrives twice."""
        self.cut: set[tuple[str, str]] = set()
        """Directions, from one host's name to another's, in which nothing passes."""

    def send(self, source: Holder, to: str, arrive: Callable[[Holder], None]) -> None:
        """One datagram: `arrive` is called with whoever answers at the address when it gets there."""
        rng = self.clock.rng
        owner = self.owners.get(to)
        if owner is None or (self.cut and (source.name, owner.name) in self.cut):
            return
        if self.loss and rng.random() < self.loss:
            return
        self.clock.after(rng.uniform(*self.latency), lambda: self._arrive(to, arrive))
        if self.repeat and rng.random() < self.repeat:
            self.clock.after(rng.uniform(0.0, 2.0), lambda: self._arrive(to, arrive))

    def _arrive(self, to: str, arrive: Callable[[Holder], None]) -> None:
        owner = self.owners.get(to)
        if owner is not None and owner.running:
            arrive(owner)

    def sound(self, one: Holder, other: Holder) -> bool:
        """Whether what one of the two sends surely reaches the other."""
        cut = self.cut and ((one.name, other.name) in self.cut or (other.name, one.name) in self.cut)
        return not cut and not self.loss

    def changed(self) -> None:
        """Loss or partitions changed: every charon's dead peer detection is at work again."""
        for charon in dict.fromkeys(self.owners.values()):
            charon.check_all()
