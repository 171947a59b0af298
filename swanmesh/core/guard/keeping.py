"""Keeping the guard as it is wanted: what the kernel holds of it, and the changes that are due.

A change puts first and drops afterwards, so that no order of them leaves a moment without cover.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from swanmesh.core.guard.policies import (
    EXEMPT,
    OWNER,
    Cover,
    Crossed,
    Exempt,
    Ground,
    Key,
    Opening,
    Part,
    Used,
    closed,
    last_used,
    peers_end,
    policies_of,
)
from swanmesh.core.model import Address
from swanmesh.core.peers.removals import too_many
from swanmesh.core.reasons import GUARD_TAKEN, GUARD_WANTED, NONE, WAITING_FOR_GUARD, Reason
from swanmesh.core.xfrm import Direction, XfrmPolicy

_RETRY = 5.0
"""Seconds until what the kernel refused is tried again."""
_BATCH = 1000
"""Parts that one change has at most: others have their turn in between."""


@dataclass(frozen=True, slots=True)
class Change:
    """Parts that are to stand in the kernel as they are here, or, as None, not at all."""

    put: tuple[XfrmPolicy, ...]
    """These first, each in the place of the one with its selector, if there is one: so there is no moment
    without cover."""
    drop: tuple[XfrmPolicy, ...]
    parts: tuple[tuple[Key, Part | None], ...] = field(repr=False)


@dataclass(slots=True)
class Guard:
    """Which parts are wanted, which the kernel holds, and what is under way."""

    expected: bool = False
    """Whether the kernel shows what it holds, or is yet to."""
    wanted: dict[Key, Part] = field(default_factory=dict)
    held: dict[Key, Part] = field(default_factory=dict)
    """As the kernel acknowledged or showed them."""
    covers: dict[str, tuple[Key, ...]] = field(default_factory=dict)
    """Keys of the covers that each source brought."""
    reason: Reason = GUARD_WANTED
    """Of the next change."""
    refused: Reason = NONE
    """Why the last change failed; empty if it did not."""
    unaccounted: frozenset[str] = frozenset()
    """Networks that the kernel closes and that no file describes, too many to be let go unasked."""
    let_go: bool = False
    """Somebody confirmed that they may go."""
    waiting: set[str] = field(default_factory=set)
    """Names of the pairs whose connections wait for a change."""
    version: int = 0
    """Grows whenever something else is wanted."""
    last_used: dict[Key, Used] = field(default_factory=dict)
    """When there was clear text with each network last, as the last look at the kernel showed it."""
    crossed: dict[Address, Crossed] | None = None
    """What crossed in clear with each address, as far as it was counted; None if nobody counts."""
    _seen: bool = False
    """Whether the kernel was looked at: what it holds from before is changed by what differs."""
    _stray: dict[Key, XfrmPolicy] = field(default_factory=dict)
    """Policies that bear our mark and belong to no part, by their selectors."""
    _doubtful: set[Key] = field(default_factory=set)
    """Keys of parts of which the kernel refused a change: they may stand in part, whatever is held."""
    _changing: Change | None = None
    _retry_at: float = 0.0
    _dirty: dict[Key, None] = field(default_factory=dict)
    """Keys of the parts that may stand otherwise than they are wanted."""
    _families: dict[int, int] = field(default_factory=dict)
    """How many parts are wanted of each family."""

    def want(self, key: Key, part: Part | None) -> None:
        """From now on this part, or none, for this key."""
        before = self.wanted.get(key)
        if before == part:
            return
        for selector in policies_of(part) if self._stray else ():
            self._stray.pop(selector, None)
        if part is None:
            del self.wanted[key]
        else:
            self.wanted[key] = part
        self._dirty[key] = None
        self.version += 1
        if (before is None) != (part is None) and len(key) > 1:
            self._count(_address(key).version, 1 if before is None else -1)

    def cover(self, source: str, covers: Iterable[Cover | Exempt], kept: Container[Address] = ()) -> None:
        """From now on these from this source. What it brought before at an address among `kept` stays."""
        wanted: dict[Key, Part] = {cover.key: cover for cover in covers}
        for key in self.covers.pop(source, ()):
            before = self.wanted.get(key)
            if key in wanted or not isinstance(before, Cover | Exempt) or before.source != source:
                continue  # another source has it by now
            if before.network in kept:
                wanted[key] = before
            else:
                self.want(key, None)
        for key, cover in wanted.items():
            self.want(key, cover)
        if wanted:
            self.covers[source] = tuple(wanted)

    def _count(self, version: int, more: int) -> None:
        self._families[version] = count = self._families.get(version, 0) + more
        ground = Ground(version)
        self.want(ground.key, ground if count else None)

    @property
    def lasting(self) -> list[Part]:
        """What outlives the service and the machine's next start."""
        return [part for part in self.wanted.values() if not isinstance(part, Opening)]

    def used_with(self, addresses: Iterable[Address]) -> Used:
        """When there was clear text last with any of these addresses."""
        found = [self.last_used.get((each, each.max_prefixlen), Used()) for each in addresses]
        return Used(max((one.out for one in found), default=0), max((one.into for one in found), default=0))

    def crossed_with(self, addresses: Iterable[Address]) -> Crossed | None:
        """What crossed in clear with any of these addresses; None if nobody counts."""
        if self.crossed is None:
            return None
        found = [self.crossed.get(each, Crossed()) for each in addresses]
        return Crossed(sum(one.out for one in found), sum(one.into for one in found))

    def stands(self, key: Key) -> bool:
        """Whether the kernel holds what is wanted there."""
        return key not in self._doubtful and self.held.get(key) == self.wanted.get(key)

    def missing(self, *keys: Key) -> Reason:
        """Why a connection has to wait that these parts are for; empty if the kernel holds of them what is
        wanted, or nobody can tell."""
        if not self.expected or self.refused or all(map(self.stands, keys)):
            return NONE
        return WAITING_FOR_GUARD

    @property
    def due(self) -> float | None:
        """When the next change is to be made; None if all is as it should be, or one is under way."""
        if not self._seen or self._changing is not None or not (self._dirty or self._stray):
            return None
        return self._retry_at

    def change(self, now: float) -> Change | None:
        """The next change, whose outcome is `done`; None if there is none to make now."""
        if self.due is None or now < self.due:
            return None
        keys = list(self._dirty)[:_BATCH]
        put: dict[Key, XfrmPolicy] = {}
        drop: dict[Key, XfrmPolicy] = {}
        for key in keys:
            del self._dirty[key]
            before = policies_of(self.held.get(key))
            after = policies_of(self.wanted.get(key))
            opening = isinstance(self.wanted.get(key), Opening)
            anew = not self.stands(key) and (opening or key in self._doubtful)
            put |= {s: policy for s, policy in after.items() if anew or before.get(s) != policy}
            drop |= {s: policy for s, policy in before.items() if s not in after}
        if not self._dirty:
            drop |= self._stray
            self._stray = {}
        change = Change(
            # What is never to be caught comes first and goes last.
            tuple(sorted(put.values(), key=lambda policy: policy.priority)),
            tuple(sorted(drop.values(), key=lambda policy: -policy.priority)),
            tuple((key, self.wanted.get(key)) for key in keys),
        )
        if not put and not drop:
            self._take(change)
            return None
        self._changing = change
        return change

    def done(self, change: Change, error: str | None, now: float) -> None:
        """What became of a change. What was refused may stand in part: the next look at the kernel tells."""
        if change is not self._changing:
            return
        self._changing, self.reason = None, GUARD_WANTED
        if error is not None:
            self.refused, self._retry_at = Reason("guard-refused", error), now + _RETRY
            keys = dict.fromkeys(key for key, _ in change.parts)
            self._dirty |= keys
            self._doubtful.update(keys)
            return
        self.refused, self._retry_at = NONE, 0.0
        self._take(change)

    def _take(self, change: Change) -> None:
        """It is so now in the kernel."""
        for key, part in change.parts:
            self._doubtful.discard(key)
            if part is None:
                self.held.pop(key, None)
            else:
                self.held[key] = part

    def observed(
        self,
        policies: Iterable[XfrmPolicy],
        *,
        tidy: bool,
        known: Callable[[Address], bool] = lambda _: False,
    ) -> None:
        """What a look at the kernel showed. `tidy`: what bears our mark and is not wanted is to go, unless it
        closes many addresses that are not `known`."""
        shown = {policy.selector: policy for policy in policies if policy.owner == OWNER}
        self._doubtful.clear()
        self.last_used = last_used(shown.values())
        others = [(key, part) for key, part in self.wanted.items() if self.held.get(key) != part]
        claimed: set[Key] = set()
        for key, part in [*self.held.items(), *others]:
            stands = True
            for policy in part.policies():
                selector = policy.selector
                claimed.add(selector)
                found = shown.get(selector)
                stands = stands and found is not None and found.does == policy.does
            if stands:
                self.held.setdefault(key, part)
            elif self.held.get(key) == part:
                del self.held[key]
                self.reason = GUARD_TAKEN
            if not self.stands(key):
                self._dirty[key] = None
        stray = {s: policy for s, policy in shown.items() if s not in claimed} if tidy else {}
        unknown = {name for name, key in closed(stray.values()).items() if not known(_address(key))}
        everything = len(unknown) + sum(isinstance(part, Cover) for part in self.wanted.values())
        held = not self.let_go and too_many(len(unknown), everything)
        self.unaccounted = frozenset(unknown if held else ())
        self.let_go = self.let_go and bool(unknown)
        self._stray = {} if held else stray
        self._seen = True

    def deleted(self, policy: XfrmPolicy) -> None:
        """A policy with our mark was deleted, perhaps by us. One that is wanted is to be put back."""
        theirs, bits = peers_end(policy)
        ours = policy.source if policy.direction is Direction.OUT else policy.destination
        for key in ((theirs, bits), (theirs, bits, EXEMPT), (ours, theirs), (theirs.version,)):
            if policy.selector in policies_of(self.held.get(key)):
                del self.held[key]
                if policy.selector in policies_of(self.wanted.get(key)):
                    self._dirty[key] = None
                    self.reason = GUARD_TAKEN

    def flushed(self) -> None:
        """Nothing of it stands any more; what was under way may have come before or after."""
        self.held.clear()
        self._doubtful.clear()
        self._dirty |= dict.fromkeys(self.wanted)
        self._stray, self._changing, self._retry_at, self.reason = {}, None, 0.0, GUARD_TAKEN

    def watched(self, watched: bool) -> None:
        """The kernel can be looked at from now on, or cannot. What it holds is not known before the look."""
        self.flushed()
        self.expected, self._seen, self.reason = watched, False, GUARD_WANTED


def _address(key: Key) -> Address:
    address = key[0]
    assert isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)  # noqa: S101 - but the ground's
    return address
