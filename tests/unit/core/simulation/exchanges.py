"""What a simulated charon does by itself: dead peer detection, rekeying, reauthentication."""

from __future__ import annotations

from tests.unit.core.simulation.holder import Holder
from tests.unit.core.simulation.responses import Responses
from tests.unit.core.simulation.sas import Child, Ike

DPD_DELAY = 5.0


_PROMPT = 1.0
"""Seconds within which whoever is no further behind answers with certainty."""


class Exchanges(Responses):
    # Dead peer detection. What would be answered with certainty is not simulated.

    def ended(self, ike: Ike) -> None:
        self.other_end_looks(ike)

    def other_end_looks(self, ike: Ike) -> None:
        owner = self.network.owners.get(ike.remote)
        other = owner.by_spi.get(ike.spi_i) if owner is not None else None
        if owner is not None and other is not None:
            owner.check(other)

    def check_all(self) -> None:
        for ike in self.sas.values():
            self.check(ike)

    def check(self, ike: Ike) -> None:
        """Look for a sign of life within the delay, unless all is well with certainty."""
        if ike.dpd_due or ike.gone or ike.spi_i not in self.by_spi:
            return
        if self.cpu is None and self._well(ike):
            return
        ike.dpd_due = True
        self.clock.after(self.clock.rng.uniform(0.0, DPD_DELAY), lambda: self._dpd(ike))

    def _well(self, ike: Ike) -> bool:
        owner = self.network.owners.get(ike.remote)
        if owner is None or not owner.running or not self.network.sound(self, owner):
            return False
        return ike.spi_i in owner.by_spi and not (_behind(self) or _behind(owner))

    def _dpd(self, ike: Ike) -> None:
        ike.dpd_due = False
        if ike.gone or (self.cpu is None and self._well(ike)):
            return
        quiet = self.clock.now - ike.heard >= DPD_DELAY
        if quiet and not self._well(ike) and ike.exchange is None and ike.established_state:
            self.begin(ike, "IKE_DPD", None, lambda _: None)
        ike.dpd_due = True
        self.clock.after(DPD_DELAY, lambda: self._dpd(ike))

    # charon's own timers.

    def began(self, ike: Ike) -> None:
        rng, life = self.clock.rng, self.lifetimes
        self.clock.after(life.ike_rekey * rng.uniform(0.9, 1.0), lambda: self._rekey_due(ike))
        if ike.original:
            self.clock.after(life.reauth * rng.uniform(0.9, 1.0), lambda: self._reauth_due(ike))
        self.check(ike)

    def _rekey_due(self, ike: Ike) -> None:
        if not ike.gone and ike.state == "ESTABLISHED":
            self.enqueue(ike, lambda: self.replace_ike(ike))

    def _reauth_due(self, ike: Ike) -> None:
        while ike.successor is not None:
            ike = ike.successor
        if not ike.gone:
            self.enqueue(ike, lambda: self.reauthenticate(ike))

    def child_began(self, ike: Ike, child: Child) -> None:
        wait = self.lifetimes.child_rekey * self.clock.rng.uniform(0.9, 1.0)
        self.clock.after(wait, lambda: self._child_rekey_due(ike, child))

    def _child_rekey_due(self, ike: Ike, child: Child) -> None:
        while ike.successor is not None:
            ike = ike.successor
        if not ike.gone and child.state == "INSTALLED":
            self.enqueue(ike, lambda: self.replace_child(ike, child))


def _behind(charon: Holder) -> bool:
    return charon.cpu is not None and charon.cpu.behind > _PROMPT
