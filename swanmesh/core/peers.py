"""Which peers the mesh has: names and addresses checked, and a book that keeps the last good state of each.

Names are host names by RFC 1123 §2.1. They become identities in certificates, names of connections in charon,
file names and labels, so nothing uses one that has not passed `check_name`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping

from swanmesh.core.model import Address, Host, InvalidInput, Peer, Policy, Problem, shown
from swanmesh.core.reasons import FILES_IN_DOUBT, NONE, Reason
from swanmesh.core.removals import Removals

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def check_name(value: object) -> str:
    """The host name in lower case. Raises ValueError with what is wrong with it.

    A name whose last label is a number is refused: it reads as an IPv4 address, and charon would take it for
    an identity of that kind (RFC 1123 §2.1; identification_create_from_string).
    """
    if not isinstance(value, str):
        raise ValueError("must be a host name in quotes")
    name = value.lower()
    if not name or len(name) > 253:
        raise ValueError("must have 1 to 253 characters")
    labels = name.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(
                "is no host name: letters, digits and hyphens, in parts of 1 to 63 characters between dots"
            )
    if labels[-1].isdigit():
        raise ValueError("must not end in a number: it would read as an address")
    return name


def check_address(value: object) -> Address:
    """One unicast address that a peer can have. Raises ValueError with what is wrong with it."""
    if not isinstance(value, str):
        raise ValueError("must be an address in quotes")
    if "/" in value:
        raise ValueError("must be a single address, not a block")
    if "%" in value:
        raise ValueError("must have no zone: link-local addresses mean nothing on another link")
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("is neither an IPv4 nor an IPv6 address") from None
    for wrong, word in (
        (address.is_unspecified, "unspecified"),
        (address.is_loopback, "a loopback address"),
        (address.is_multicast, "a multicast address"),
        (address.is_link_local, "a link-local address"),
        (address == _BROADCAST, "the broadcast address"),
        (
            isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None,
            "an IPv4-mapped one",
        ),
    ):
        if wrong:
            raise ValueError(f"is {word}")
    return address


def check_policy(value: object) -> Policy:
    """A policy that this release can keep. Raises ValueError with what is wrong with it."""
    possible = "require, prefer or off"
    try:
        policy = Policy(value) if isinstance(value, str) else None
    except ValueError:
        policy = None
    if policy is None:
        # YAML 1.1 reads a bare `off` as false.
        if value is False:
            return Policy.OFF
        raise ValueError(f"is no policy: {possible}")
    if policy is Policy.MONITOR:
        raise ValueError("is not in this release")
    return policy


def parse_peer(name: object, addresses: object, policy: object = None, *, source: str) -> Peer:
    """The peer that a file or a command line describes. Raises InvalidInput with every problem found."""
    problems: list[Problem] = []
    good_name, good_policy = "", None
    try:
        good_name = check_name(name)
    except ValueError as error:
        problems.append(
            Problem(source, "name", shown(name), str(error), "give the name in the peer's certificate")
        )
    good = parse_addresses(addresses, "addresses", source, problems)
    if policy is not None:
        try:
            good_policy = check_policy(policy)
        except ValueError as error:
            remedy = "write require, prefer or off, or leave it out"
            problems.append(Problem(source, "policy", shown(policy), str(error), remedy))
    if problems:
        raise InvalidInput(*problems)
    return Peer(name=good_name, addresses=good, policy=good_policy, source=source)


def parse_addresses(value: object, key: str, source: str, problems: list[Problem]) -> tuple[Address, ...]:
    """The addresses of a host or a peer, in order; adds what is wrong with them to `problems`."""
    if not isinstance(value, list | tuple) or not value:
        remedy = 'give a list of one or more, such as [203.0.113.12, "2001:db8::c"]'
        problems.append(Problem(source, key, shown(value), "must be a list of addresses", remedy))
        return ()
    good: dict[Address, None] = {}
    for index, item in enumerate(value):
        place = f"{key}[{index}]"
        try:
            address = check_address(item)
        except ValueError as error:
            remedy = "give an address that the other hosts reach it at"
            problems.append(Problem(source, place, shown(item), str(error), remedy))
            continue
        if address in good:
            problems.append(Problem(source, place, shown(item), "stands twice", "leave one out"))
        good[address] = None
    return tuple(good)


class PeerBook:
    """Which peers are in force, by file: the one place that knows, for as long as the service lives.

    A file that contradicts another one does not come into force: what held before goes on, and `problems`
    names both files. A file that is gone takes its peer along through `removals`.

    Work is proportional to what an update brings, however many peers there are.
    """

    def __init__(self, host: Host) -> None:
        self.removals = Removals()
        self._host = host
        self._in_force: dict[str, Peer] = {}
        self._claims: dict[str | Address, str] = {}
        self._refused: dict[str, tuple[Peer, Problem]] = {}
        self._own: dict[str, Peer] = {}
        """Files that describe this host itself."""

    @property
    def peers(self) -> Mapping[str, Peer]:
        """The peers in force, by source file."""
        return self._in_force

    @property
    def problems(self) -> tuple[Problem, ...]:
        own = (problem for peer in self._own.values() if (problem := self._own_problem(peer)) is not None)
        return (*(problem for _, problem in self._refused.values()), *own)

    @property
    def sources(self) -> frozenset[str]:
        """All files that were taken in, whatever became of them."""
        return frozenset(self._in_force.keys() | self._refused.keys() | self._own.keys())

    @property
    def doubt(self) -> Reason:
        """Why peers that no file describes may be described after all; empty if they cannot. A file that is
        refused while no version before it is in force may have described anybody."""
        found = [str(problem) for s, (_, problem) in self._refused.items() if s not in self._in_force]
        return self.removals.doubt or (Reason(FILES_IN_DOUBT, min(found)) if found else NONE)

    def named(self, name: str) -> Peer | None:
        source = self._claims.get(name)
        return self._in_force[source] if source is not None else None

    def knows(self, peer: Peer) -> bool:
        """Whether this is what its file said last, and nothing follows from hearing it again."""
        refused = self._refused.get(peer.source)
        last = self._in_force.get(peer.source, self._own.get(peer.source)) if refused is None else refused[0]
        return peer == last and peer.source not in self.removals

    def take(
        self,
        put: Iterable[Peer],
        drop: Iterable[str],
        gone: Iterable[str],
        broken: Iterable[str],
        now: float,
    ) -> tuple[frozenset[str], dict[str, Peer]]:
        """Take in what the files say: new versions, files removed on purpose, files that are just gone, and
        files that say nothing valid, which stand nevertheless.
        Returns the names of the peers that changed, and those that leave by it."""
        put, gone = list(put), list(gone)
        drop = [*drop, *(source for source in gone if source not in self._in_force)]
        self.removals.over([*(peer.source for peer in put), *drop, *broken])
        self.removals.gone((source for source in gone if source in self._in_force), now)
        # A peer that moved to another file is not removed; one whose address another takes goes at once.
        held_by = {peer.source: self._claims.get(peer.name) for peer in put}
        moved = {source for source in held_by.values() if source is not None and source in self.removals}
        self.removals.over(moved)
        replaced = {s for peer in put for a in peer.addresses if (s := self._claims.get(a)) is not None}
        ready = self.removals.take(now, len(self._in_force), replaced)
        concerned = [self._in_force.get(s) for s in (*(peer.source for peer in put), *drop, *ready)]
        names = self.update(put, [*drop, *moved, *ready])
        return names, {p.name: p for p in concerned if p is not None and self.named(p.name) is None}

    def set_host(self, host: Host) -> frozenset[str]:
        """This host has another name or other addresses. Returns the names of the peers that changed."""
        before = dict(self._in_force)
        candidates = before | {source: peer for source, (peer, _) in self._refused.items()} | self._own
        self._host, self._refused, self._own = host, {}, {}
        good = {
            source: peer
            for source, peer in before.items()
            if peer.name != host.name and not set(peer.addresses) & set(host.addresses)
        }
        for source in before.keys() - good.keys():
            self._release(source)
        self._settle(candidates, good)
        return _changed(before, self._in_force)

    def prefer(self, held: Callable[[Peer], bool]) -> frozenset[str]:
        """Of files that contradict each other, with no version in force before, those come into force whose
        peers charon `held`: they were in force before this service began. Returns the names of the peers that
        changed."""
        names: set[str] = set()
        for source, (peer, _) in sorted(self._refused.items()):
            rivals = {self._claims.get(claim) for claim in (peer.name, *peer.addresses)}
            others = [self._in_force[rival] for rival in rivals if rival is not None]
            if source in self._in_force or not others or not held(peer) or any(map(held, others)):
                continue
            for other in others:
                self._release(other.source)
            if self._contradiction(peer) is None:
                self._accept(peer)
                del self._refused[source]
            names |= {peer.name, *(other.name for other in others)} | self.update(others)
        return frozenset(names)

    def update(self, put: Iterable[Peer] = (), drop: Iterable[str] = ()) -> frozenset[str]:
        """Take in new versions and drop files that are gone, all at once: addresses may be exchanged between
        files in one update. Returns the names of the peers that changed."""
        new = {peer.source: peer for peer in put}
        touched = set(new) | set(drop)
        for source in touched:
            self._refused.pop(source, None)
            self._own.pop(source, None)
        candidates = {source: peer for source, (peer, _) in self._refused.items()} | new
        concerned = touched | candidates.keys()
        before = {source: self._in_force[source] for source in concerned if source in self._in_force}
        self._settle(candidates, before)
        after = {source: self._in_force[source] for source in concerned if source in self._in_force}
        return _changed(before, after)

    def _settle(self, candidates: dict[str, Peer], before: dict[str, Peer]) -> None:
        """Accept all candidates that contradict nothing. One that does falls back on its last good version,
        which then is a fact for the others; so it goes round until nothing changes."""
        fallback: set[str] = set()
        while True:
            for source in candidates.keys() | before.keys():
                self._release(source)
            for source in fallback:
                self._accept(before[source])
            refused: dict[str, tuple[Peer, Problem]] = {}
            for source, peer in sorted(candidates.items()):
                if peer.name == self._host.name:
                    self._own[source] = peer
                    continue
                problem = self._contradiction(peer)
                if problem is not None:
                    refused[source] = (peer, problem)
                elif source not in fallback:
                    self._accept(peer)
            late = {source for source in refused if source in before and source not in fallback}
            if not late:
                break
            fallback |= late
        self._refused = self._settle_late(
            {source: candidates[source] for source in sorted(fallback | refused.keys())}
        )

    def _settle_late(self, waiting: dict[str, Peer]) -> dict[str, tuple[Peer, Problem]]:
        """Accept those of `waiting` that contradict nothing after all: what stood in their way fell back too.
        Returns the others with what they contradict."""
        while True:
            refused = {}
            for source, peer in waiting.items():
                problem = self._contradiction(peer)
                if problem is None:
                    self._release(source)
                    self._accept(peer)
                else:
                    refused[source] = (peer, problem)
            if len(refused) == len(waiting):
                return refused
            waiting = {source: waiting[source] for source in refused}

    def _accept(self, peer: Peer) -> None:
        self._in_force[peer.source] = peer
        for claim in (peer.name, *peer.addresses):
            self._claims[claim] = peer.source

    def _release(self, source: str) -> None:
        peer = self._in_force.pop(source, None)
        if peer is not None:
            for claim in (peer.name, *peer.addresses):
                del self._claims[claim]

    def _contradiction(self, peer: Peer) -> Problem | None:
        holder = self._claims.get(peer.name)
        if holder is not None and holder != peer.source:
            message = f"the name stands in {holder} too"
            return Problem(peer.source, "name", peer.name, message, "remove one of the two files")
        for index, address in enumerate(peer.addresses):
            key = f"addresses[{index}]"
            if address in self._host.addresses:
                remedy = "give the peer's address, or remove the file"
                return Problem(peer.source, key, str(address), "is this host's own address", remedy)
            holder = self._claims.get(address)
            if holder is not None and holder != peer.source:
                message = f"the address stands in {holder} too"
                return Problem(peer.source, key, str(address), message, "correct one of the two files")
        return None

    def _own_problem(self, peer: Peer) -> Problem | None:
        for index, address in enumerate(peer.addresses):
            if address not in self._host.addresses:
                message = "is not in host.addresses, though the file has this host's own name"
                remedy = "correct the file, or host.addresses in swanmesh.yaml"
                return Problem(peer.source, f"addresses[{index}]", str(address), message, remedy)
        return None

    @property
    def held(self) -> dict[str, Peer]:
        """Peers whose files are gone and who are too many to go, by file."""
        return {s: self._in_force[s] for s in self.removals} if self.removals.held else {}


def _changed(before: Mapping[str, Peer], after: Mapping[str, Peer]) -> frozenset[str]:
    """Names of the peers that differ."""
    return frozenset(
        peer.name
        for source in before.keys() | after.keys()
        if before.get(source) != after.get(source)
        for peer in (before.get(source), after.get(source))
        if peer is not None
    )
