"""Whether packets pass through a pair's association, from counters and probes: IKE tells nothing of that.

What comes in through ESP is a proof that only the peer can give, so every verdict stands on the kernel's
counters of it. Silence alone proves nothing: the peer may have nothing to say. So a quiet pair is probed: a
datagram to the peer's own service, and one to a port where nobody listens, which the peer's kernel answers
without any process. Silence then counts as evidence as follows; `up` is what a pair is where nobody knows.

    known of the peer                     nothing comes in        its service says that it hears nothing
    its kernel has answered before        no data                 no data
    only its service has, and more
    than probes goes out for long         no data                 no data
    only its service has, and nothing
    but probes goes out                   up                      no data
    neither has                           up                      (cannot be)

A service that is stopped, older, or starved of its CPU is covered by its kernel; a packet filter that drops
the probes, by what the peer itself sends; one that drops all, by the last two rows. Silence is counted in
probes that were sent and looks at counters that came after them, so a controller that is starved itself
concludes nothing. What cannot be told from a dead path is a peer whose service is gone, whose filter then
drops all that it is sent, and which answers nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from swanmesh.core.model import AddressPair
from swanmesh.core.reasons import NO_DATA, NONE, Reason

ASKED = 8.0
"""Seconds for which a peer is asked, each second, and nothing at all comes in, after which no data passes.
With the interval at which a quiet pair is asked it is noticed about as soon as a peer whose IKE is dead."""
DOUBT = 2.0
"""Seconds of it after which the peer is told."""
_PROBES = 8
"""... and so many probes without anything coming in. Each asks the peer's kernel as well, so at 20 % loss
each way that happens by chance about once in ten million times that a pair is in doubt."""
ECHOES = 2
"""Times that a probe in doubt asks the peer's kernel: Linux answers each asker once a second, and six times
beyond that (net.ipv4.icmp_ratelimit)."""
_DENIED, _DENIED_FOR = 8, 6.0
"""Questions, and seconds over which they came, that say that nothing of what they are answered is heard."""
_SAID = 5.0
"""Seconds for which they count."""
_LATE = 3
"""Datagrams at most that are known before the counters show them."""
_OTHERS = 10
"""Packets beside probes that show that somebody waits for an answer."""
_PATIENCE = 45.0
"""Seconds of silence where only the peer's service is known: longer than systemd lets one hang."""
_TRIES = 3
"""Times that the peer's kernel is asked before it is taken to be mute."""
MEND_AFTER = 15.0
"""Seconds for which no data passes until another association is tried: a short fault needs none."""
_MEND = 30.0
"""... and until the next one is, then twice as long each time."""
_MEND_CEILING = 1800.0

Kind = Literal["ask", "answer", "echo", "sent"]


class Heard(NamedTuple):
    """One datagram of a peer's."""

    addresses: AddressPair
    kind: Kind
    """`echo`: its kernel says that nobody listens where nobody ever does. That may be forged by anybody who
    guesses two ports: it says what the peer's kernel does, and is no proof that the data path works."""
    size: int = 0
    """Of an answer: bytes of the IP packet that was asked with, if that was of a size. `sent` is no word of
    the peer's, but the size that the kernel believed to pass."""
    silence: int = 0
    """Seconds for which the peer's service has asked and heard nothing at all from here."""


@dataclass(slots=True)
class DataPath:
    """What is known of one pair's data path. Times on the core's clock."""

    watched: bool = False
    """Whether there is an association to be probed."""
    heard: float = 0.0
    """When a packet last came in, or the association came up."""
    first: float = 0.0
    """When the first probe was sent since."""
    probes: int = 0
    """Probes sent since."""
    looked: float = float("-inf")
    """What the last look at the counters shows is as old as this."""
    due: float | None = None
    """When it is probed next."""
    echoes: bool = False
    """Whether the peer's kernel says so where nobody listens."""
    tried: int = 0
    """How often that was tried while it was not known."""
    speaks: bool = False
    """Whether the peer's service has been heard."""
    answered: float = float("-inf")
    """When it last answered: that proves both ways."""
    denied: int = 0
    """Questions in a row by which the peer says that it hears nothing, though each was answered."""
    denied_first: float = 0.0
    denied_last: float = 0.0
    """When the first and the last of them came."""
    urgent_until: float = float("-inf")
    """Until when it is asked each second whatever comes in: something is on trial."""
    dead: Reason = NONE
    """Why no data passes; empty if it does, or nobody knows."""
    mend_at: float = 0.0
    """When a new association is tried next, while no data passes."""
    mended: int = 0
    """How often that was tried."""
    _came: tuple[tuple[str, int], ...] | None = None
    """Packets in by inbound SPI, as the last look showed them."""
    _told: int = 0
    """Datagrams of the peer's since the last look: what they add to the counters is no news."""
    _went: int = 0
    _others: int = 0
    """Packets out since `heard`, without our probes."""

    def begin(self, now: float) -> None:
        """There is an association now and was none before."""
        self.watched, self.heard, self.probes, self.dead = True, now, 0, NONE
        self.denied, self._came, self._others, self.mended = 0, None, 0, 0

    def end(self) -> None:
        self.watched, self.due, self.dead, self._came = False, None, NONE, None

    def hear(self, now: float) -> None:
        """Something came in through the association."""
        self.heard, self.probes, self._others = now, 0, 0

    def take(self, heard: Heard, now: float) -> None:
        """A datagram of the peer's."""
        if heard.kind == "echo":
            self.echoes = True
            return
        self.speaks, self.denied_last = True, now
        self.denied = self.denied + 1 if heard.silence else 0
        if self.denied == 1:
            self.denied_first = now
        if heard.kind == "answer":
            self.answered = now
        self._told += 1
        self.hear(now)

    def tries_again(self, now: float) -> None:
        """Another association is begun; the next one, if it does not help either, after longer."""
        self.mend_at = now + min(_MEND_CEILING, _MEND * 2.0 ** min(self.mended, 30))
        self.mended += 1

    def probed(self, now: float) -> None:
        if self.probes == 0:
            self.first = now
        self.probes += 1

    def count(self, counts: Iterable[tuple[str, int, int]], at: float) -> None:
        """What a look that began at `at` shows: inbound SPI, packets in and out of each CHILD_SA."""
        found = tuple(counts)
        went = sum(out for _, _, out in found)
        before, known = dict(self._came or ()), self._came is not None
        grown = sum(max(0, packets - before.get(spi, 0)) for spi, packets, _ in found)
        if known and grown > self._told:
            self.hear(at)
        elif known:
            self._others += max(0, went - self._went)
        self._came, self._went = tuple((spi, packets) for spi, packets, _ in found), went
        # What came while the look was under way shows in the next one.
        self._told, self.looked = min(_LATE, max(0, self._told - grown)), at

    @property
    def in_doubt(self) -> bool:
        return self.watched and (self.probes > 0 or self.denied > 0)

    @property
    def suspect(self) -> bool:
        """Whether it looks as if no data passed, be that evidence or not."""
        return bool(self.dead) or self.silence >= DOUBT or self.denied > 1

    @property
    def denied_for(self) -> float:
        """Seconds for which the peer has said so."""
        return self.denied_last - self.denied_first if self.denied else 0.0

    def came_by(self, spi: str) -> bool:
        """Whether the last look showed a packet that came in by this SPI."""
        return any(known == spi and packets > 0 for known, packets in self._came or ())

    @property
    def known(self) -> bool:
        """Whether anything at the peer has ever answered."""
        return self.echoes or self.speaks

    @property
    def basis_wanted(self) -> bool:
        """Whether it is still to be found out what the peer's kernel does."""
        return not self.echoes and self.tried < _TRIES

    @property
    def answered_by(self) -> list[str]:
        """What at the peer has answered."""
        return [word for word, has in (("service", self.speaks), ("kernel", self.echoes)) if has]

    @property
    def silence(self) -> float:
        """Seconds for which the peer was asked and nothing came in, as far as the counters were looked at."""
        return max(0.0, self.looked - self.first) if self.probes > 1 else 0.0

    def lost(self, now: float) -> Reason:
        """Why no data passes; empty if it does, or nobody knows."""
        said = self.denied >= _DENIED and self.denied_for >= _DENIED_FOR
        if said and now - self.denied_last <= _SAID:
            words = "the peer hears nothing from here, not even the answers to what it asks"
            return Reason(NO_DATA, f"{words}: ESP is dropped on the way")
        asked = self.silence >= ASKED and self.probes >= _PROBES
        missed = self.silence >= _PATIENCE and self._others - (1 + ECHOES) * self.probes >= _OTHERS
        if asked and (self.echoes or (self.speaks and missed)):
            words = f"nothing came in for {now - self.heard:.0f} s, and {self.probes} probes had no answer"
            return Reason(NO_DATA, f"{words}: ESP is dropped on the way, or at the other end")
        return NONE
