"""How many initiations may be under way at once: the rest wait in line, first come first served."""

from __future__ import annotations


class Admission:
    """Bounds what is in flight: a burst of `initiate` starves charon's workers of answers."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._flying: set[str] = set()
        self._line: dict[str, None] = {}

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    @property
    def waiting(self) -> int:
        return len(self._line)

    def take(self, name: str) -> bool:
        """A place for this pair, if there is one; else it waits in line."""
        if name in self._flying:
            return True
        if len(self._flying) >= self.limit:
            self._line[name] = None
            return False
        self._line.pop(name, None)
        self._flying.add(name)
        return True

    def release(self, name: str) -> None:
        """The pair's initiation is over, or it wants none any more."""
        self._line.pop(name, None)
        self._flying.discard(name)

    def next_in_line(self) -> str | None:
        """Whose turn it is, if a place is free; it leaves the line and must take the place or be done."""
        if not self._line or len(self._flying) >= self.limit:
            return None
        first = next(iter(self._line))
        del self._line[first]
        return first

    def clear(self) -> None:
        self._flying.clear()
        self._line.clear()
