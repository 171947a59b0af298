"""How large packets may be to pass through a pair's association, where nobody on the way tells.

A router that drops what is too large should say so; where it does not, or a filter drops what it says, TCP
stands still while small packets pass. So a question is sent as large as the kernel believes to pass, and
never in fragments. If small ones are answered meanwhile and it is not, time after time, the largest that
passes is searched for by halving, and the kernel is told by a route to this one peer.
"""

from __future__ import annotations

from dataclasses import dataclass

from swanmesh.core.reasons import NONE, PATH_MTU, Reason

AFTER = 10.0
"""Seconds from the beginning of an association to the first question."""
_EVERY = 3600.0
"""Seconds between two such questions while all is well."""
_AGAIN = 60.0
"""... and where not even small packets were answered, which is another matter."""
_TRIES = 6
"""Times that the largest packet is sent in vain: one in 500 such cases is chance at 20 % loss each way. What
follows from it is a little more effort for some minutes."""
_STEP_TRIES = 3
_LEAST = 576
"""Bytes of a packet that any path carries (RFC 1122 §3.3.2); IPv6 needs 1280, which is then found to pass."""
_CLOSE = 8
"""Bytes to which it is searched for."""
BELIEVED = 0
"""In place of a size: as large as the kernel believes to pass."""


@dataclass(slots=True)
class PathMtu:
    """What is known of one pair. Sizes are bytes of the IP packet that goes into ESP, times on the core's
    clock."""

    due: float = float("inf")
    believed: int = 0
    """What the kernel believed to pass when it was asked; 0 as long as it was not."""
    limit: int = 0
    """The largest packet that passes; 0 where all that the kernel believes to pass does."""
    changed: bool = False
    """Whether the kernel is still to be told of `limit`."""
    error: str = ""
    """Why the kernel refused that."""
    _asking: int | None = None
    _tries: int = 0
    _since: float = 0.0
    _low: int = 0
    _high: int = 0
    _waits: int = 0
    _again: float = 300.0

    @property
    def reason(self) -> Reason:
        """What is wrong; empty if nothing is."""
        if not self.limit:
            return NONE
        told = f", and the kernel cannot be told: {self.error}" if self.error else ", which TCP is told"
        words = f"packets of more than {self.limit} bytes vanish on the way, and nobody says so"
        return Reason(PATH_MTU, words + told)

    @property
    def busy(self) -> bool:
        return self._asking is not None

    def begin(self, now: float) -> None:
        """The association is another one, or is carried otherwise."""
        self.due, self._asking = now + AFTER, None

    def next(self, now: float, answered: float, again: float) -> int | None:
        """The size of the packet to be sent now; None if none is. `answered`: when the peer last answered
        anything. `again`: seconds after which it is asked again whether large packets pass, then twice as
        long each time."""
        self._again = again
        if self._asking is None:
            if now < self.due:
                return None
            self._ask(self.believed if self.limit else BELIEVED, now)
            self._low = self._high = 0
        elif self._tries >= (_STEP_TRIES if self._high else _TRIES):
            if answered < self._since:
                self._end(now + _AGAIN)
            else:
                self._in_vain(now)
        if self._asking is None:
            return None
        self._tries += 1
        return self._asking

    def sent(self, size: int) -> None:
        """A packet was sent as large as the kernel believes to pass."""
        self.believed = size

    def take(self, size: int, now: float) -> None:
        """A packet of this size was answered."""
        if self._asking is None or size < (self._asking or self.believed):
            return
        if self._high:
            self._low = max(self._low, size)
            self._narrow(now)
        else:
            self._settle(0, now)

    def _in_vain(self, now: float) -> None:
        if self._high:
            self._high = self._asking or self._high
            self._narrow(now)
        elif self.limit:
            self._waits += 1
            self._end(now + max(self._again, min(_EVERY, self._again * 2.0 ** min(self._waits, 20))))
        elif self.believed > _LEAST:
            self._high = self.believed
            self._narrow(now)
        else:
            self._end(now + _EVERY)

    def _narrow(self, now: float) -> None:
        low = self._low or _LEAST
        if self._high - low > _CLOSE:
            self._ask((self._high + low) // 2, now)
        elif self._low:
            self._settle(self._low, now)
        else:
            self._end(now + _EVERY)  # not even what any path carries: no matter of size

    def _settle(self, limit: int, now: float) -> None:
        self.changed = self.changed or limit != self.limit
        self.limit, self._waits = limit, 0
        self._end(now + (self._again if limit else _EVERY))

    def _ask(self, size: int, now: float) -> None:
        self._asking, self._tries, self._since = size, 0, now

    def _end(self, due: float) -> None:
        self._asking, self.due = None, due
