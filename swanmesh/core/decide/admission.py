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

    def free_for(self, name: str) -> bool:
        """Whether there is a place for this pair, or it has one."""
        return name in self._flying or len(self._flying) < self.limit

    def take(self, name: str) -> None:
        """The pair takes its place."""
        self._line.pop(name, None)
        self._flying.add(name)

    def wait(self, name: str) -> None:
        """The pair waits in line."""
        self._line[name] = None

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
