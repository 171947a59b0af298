"""Simulated time: what happens happens in order of its moment, and chance comes from one seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable


class Clock:
    """Discrete events. `now` in seconds, starting where no test takes it for zero."""

    def __init__(self, seed: int) -> None:
        self.now = 1000.0
        self.rng = random.Random(seed)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay, self._count, call))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        queue = self._queue
        while queue and queue[0][0] <= end:
            self.now, _, call = heapq.heappop(queue)
            call()
        self.now = end
