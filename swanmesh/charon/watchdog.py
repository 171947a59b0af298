"""Deadlines that are put off far more often than they pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watchdog:
    """Calls `on_late` with the words of the first deadline that passes, once.

    One timer serves all deadlines, and is moved back only when it fires, as each streamed item puts one off.
    """

    def __init__(self, on_late: Callable[[str], None]) -> None:
        self._on_late = on_late
        self._loop = asyncio.get_running_loop()
        self._deadlines: dict[str, tuple[float, str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, what: str, within: float, words: str) -> None:
        """From now on, `what` must be expected anew or forgotten within so many seconds."""
        due = self._loop.time() + within
        self._deadlines[what] = (due, words)
        if self._timer is None or due < self._timer.when():
            self._set(due)

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
        due, words = min(self._deadlines.values())
        if due <= self._loop.time():
            self.stop()
            self._on_late(words)
        else:
            self._set(due)
