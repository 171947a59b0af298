"""Processors that have only so much time: what a host does waits for what was begun before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.unit.core.simulation.clock import Clock

DPD = 0.0005
REQUEST = {"IKE_INIT": 0.008, "IKE_AUTH": 0.012, "IKE_DPD": DPD}
"""Seconds of a processor that answering takes: key exchange, signatures, and what goes into the kernel. With
the rest below a pair takes some 45 ms, as in the lab's kernel (50 hosts, one after another: 55 s)."""
RESPONSE = {"IKE_INIT": 0.005, "IKE_AUTH": 0.008, "IKE_DPD": DPD}
OTHER = 0.001
"""Any other exchange, and an event for the controller."""
AGAIN = 0.0005
"""A request that was seen before."""
INITIATE = 0.006
ASK = 0.001
"""A request of the controller's; a look takes more for each IKE_SA."""
SHOW = 0.0002


@dataclass(slots=True, eq=False)
class Cpu:
    """First come, first served. One may serve many hosts, as on one machine."""

    clock: Clock
    rate: float = 1.0
    """Seconds of work that a second does."""
    _free: float = field(default=0.0, init=False)

    @property
    def behind(self) -> float:
        """Seconds until what waits now is done."""
        return max(0.0, self._free - self.clock.now)

    def run(self, cost: float, call: Callable[[], None]) -> None:
        self._free = max(self._free, self.clock.now) + cost / self.rate
        self.clock.after(self._free - self.clock.now, call)
