"""Deadlines that are put off far more often than they pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

_PATIENCE = 3
"""How many times longer an answer may take while charon shows life: it is slow then, not hanging. One of its
threads that never comes back is found after this, with all the others at work."""


class Pulse:
    """When charon last showed life, on whichever of its sessions."""

    def __init__(self) -> None:
        self.seen = float("-inf")


@dataclass(frozen=True, slots=True)
class _Deadline:
    began: float
    within: float
    words: str
    patient: bool

    def due(self, pulse: Pulse) -> float:
        if not self.patient or pulse.seen <= self.began:
            return self.began + self.within
        return min(pulse.seen + self.within, self.began + _PATIENCE * self.within)


class Watchdog:
    """Calls `on_late` with the words of the first deadline that passes and the seconds it took, once.

    One timer serves all deadlines, and is moved back only when it fires, as each streamed item puts one off.
    """

    def __init__(self, on_late: Callable[[str], None], pulse: Pulse) -> None:
        self._on_late = on_late
        self._pulse = pulse
        self._loop = asyncio.get_running_loop()
        self._deadlines: dict[str, _Deadline] = {}
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, what: str, within: float, words: str, *, patient: bool = False) -> None:
        """From now on, `what` must be expected anew or forgotten within so many seconds; if `patient`, within
        so many since charon last showed life, and three times as many at most."""
        now = self._loop.time()
        self._deadlines[what] = _Deadline(now, within, words, patient)
        if self._timer is None or now + within < self._timer.when():
            self._set(now + within)

    def expecting(self, what: str) -> bool:
        return what in self._deadlines

    def forget(self, what: str) -> None:
        """It came."""
        self._deadlines.pop(what, None)

    def stop(self) -> None:
        """Nothing is expected any more."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._deadlines:
            return
        first = min(self._deadlines.values(), key=lambda deadline: deadline.due(self._pulse))
        due = first.due(self._pulse)
        if due <= self._loop.time():
            self.stop()
            self._on_late(f"{first.words} {round(due - first.began, 1):g} s")
        else:
            self._set(due)
