"""Which peers and blocks are in force: the last good state of each file, and what stands in the way of a
newer one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from swanmesh.core.model import Address, Block, Host, Network, Peer, Problem
from swanmesh.core.peers.blocks import BlockTable
from swanmesh.core.peers.removals import Removals
from swanmesh.core.reasons import FILES_IN_DOUBT, NONE, Reason
from swanmesh.core.settings.policy import Policy

Entry: TypeAlias = Peer | Block
"""What a file describes."""


class PeerRegistry:
    """Which peers and blocks are in force, by file: the one place that knows, while the service lives.

    A file that contradicts another one does not come into force: what held before goes on, and `problems`
    names both files. A file that is gone takes its peer along through `removals`.

    Work is proportional to what an update brings, however many peers there are.
    """

    def __init__(self, host: Host) -> None:
        self.removals = Removals()
        self.weigh: Callable[[Entry], int] = lambda _: 1
        """How many hosts go with an entry: what the brake on removals counts."""
        self.table = BlockTable()
        """Which block an address belongs to. Another object whenever blocks changed."""
        self._tabled: list[Block] = []
        self._host = host
        self._in_force: dict[str, Entry] = {}
        self._peers: dict[str, Peer] = {}
        self._claims: dict[str | Address | Network, str] = {}
        self._refused: dict[str, tuple[Entry, Problem]] = {}
        self._own: dict[str, Peer] = {}
        """Files that describe this host itself."""

    @property
    def in_force(self) -> Mapping[str, Entry]:
        """All that is in force, by source file."""
        return self._in_force

    @property
    def peers(self) -> Mapping[str, Peer]:
        """The peers in force, by source file."""
        return self._peers

    @property
    def blocks(self) -> list[Block]:
        """The blocks in force."""
        if len(self._in_force) == len(self._peers):
            return []
        return [entry for entry in self._in_force.values() if isinstance(entry, Block)]

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

    def entry(self, name: str) -> Entry | None:
        source = self._claims.get(name)
        return self._in_force[source] if source is not None else None

    def named(self, name: str) -> Peer | None:
        """The peer of this name."""
        entry = self.entry(name)
        return entry if isinstance(entry, Peer) else None

    def at(self, address: Address) -> Peer | None:
        """The peer that has this address by its file."""
        source = self._claims.get(address)
        return self._peers.get(source) if source is not None else None

    def knows(self, peer: Entry) -> bool:
        """Whether this is what its file said last, and nothing follows from hearing it again."""
        refused = self._refused.get(peer.source)
        last = self._in_force.get(peer.source, self._own.get(peer.source)) if refused is None else refused[0]
        return peer == last and peer.source not in self.removals

    def take(
        self,
        put: Iterable[Entry],
        drop: Iterable[str],
        gone: Iterable[str],
        broken: Iterable[str],
        now: float,
    ) -> tuple[frozenset[str], dict[str, Peer]]:
        """Take in what the files say: new versions, files removed on purpose, files that are just gone, and
        files that say nothing valid, which stand nevertheless.
        Returns the names of what changed, and the peers that leave by it."""
        put, gone = list(put), list(gone)
        drop = [*drop, *(source for source in gone if source not in self._in_force)]
        self.removals.over([*(peer.source for peer in put), *drop, *broken])
        self.removals.gone((source for source in gone if source in self._in_force), now)
        # A peer that moved to another file is not removed; one whose address another takes goes at once.
        held_by = {peer.source: self._claims.get(peer.name) for peer in put}
        moved = {source for source in held_by.values() if source is not None and source in self.removals}
        self.removals.over(moved)
        replaced = {s for peer in put for a in peer.claims[1:] if (s := self._claims.get(a)) is not None}
        ready = self.removals.take(
            now, self._weight, replaced, lambda source: self.weigh(self._in_force[source])
        )
        concerned = [self._in_force.get(s) for s in (*(peer.source for peer in put), *drop, *ready)]
        names = self.update(put, [*drop, *moved, *ready])
        left = (p for p in concerned if isinstance(p, Peer) and self.named(p.name) is None)
        return names, {peer.name: peer for peer in left}

    def set_host(self, host: Host) -> frozenset[str]:
        """This host has another name or other addresses. Returns the names of the peers that changed."""
        before = dict(self._in_force)
        candidates = before | {source: peer for source, (peer, _) in self._refused.items()} | self._own
        self._host, self._refused, self._own = host, {}, {}
        good = {
            source: peer
            for source, peer in before.items()
            if isinstance(peer, Block)
            or (peer.name != host.name and not set(peer.addresses) & set(host.addresses))
        }
        for source in before.keys() - good.keys():
            self._release(source)
        self._settle(candidates, good)
        return _changed(before, self._in_force)

    def prefer(self, held: Callable[[Entry], bool]) -> frozenset[str]:
        """Of files that contradict each other, with no version in force before, those come into force whose
        peers charon `held`: they were in force before this service began. Returns the names of the peers that
        changed."""
        names: set[str] = set()
        for source, (peer, _) in sorted(self._refused.items()):
            rivals = {self._claims.get(claim) for claim in peer.claims}
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

    def update(self, put: Iterable[Entry] = (), drop: Iterable[str] = ()) -> frozenset[str]:
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

    def _settle(self, candidates: dict[str, Entry], before: dict[str, Entry]) -> None:
        """Accept all candidates that contradict nothing. One that does falls back on its last good version,
        which then is a fact for the others; so it goes round until nothing changes."""
        fallback: set[str] = set()
        while True:
            for source in candidates.keys() | before.keys():
                self._release(source)
            for source in fallback:
                self._accept(before[source])
            refused: dict[str, tuple[Entry, Problem]] = {}
            for source, peer in sorted(candidates.items()):
                if isinstance(peer, Peer) and peer.name == self._host.name:
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
        self._note_blocks()

    def _note_blocks(self) -> None:
        blocks = self.blocks
        if blocks != self._tabled:
            self._tabled, self.table = blocks, BlockTable(blocks)

    def _settle_late(self, waiting: dict[str, Entry]) -> dict[str, tuple[Entry, Problem]]:
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

    def _accept(self, peer: Entry) -> None:
        self._in_force[peer.source] = peer
        if isinstance(peer, Peer):
            self._peers[peer.source] = peer
        for claim in peer.claims:
            self._claims[claim] = peer.source

    def _release(self, source: str) -> None:
        peer = self._in_force.pop(source, None)
        self._peers.pop(source, None)
        if peer is not None:
            for claim in peer.claims:
                del self._claims[claim]

    def _contradiction(self, peer: Entry) -> Problem | None:
        holder = self._claims.get(peer.name)
        if holder is not None and holder != peer.source:
            message = f"the name stands in {holder} too"
            return Problem(peer.source, "name", peer.name, message, "remove one of the two files")
        if isinstance(peer, Block):
            holder = self._claims.get(peer.cidr)
            if holder is not None and holder != peer.source:
                message = f"the block stands in {holder} too"
                return Problem(peer.source, "cidr", str(peer.cidr), message, "correct one of the two files")
            return None
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
    def _weight(self) -> int:
        """How many hosts go with all that is in force."""
        blocks = self.blocks
        return len(self._peers) + sum(map(self.weigh, blocks))

    def caught(self, needed: Mapping[Address, str], policy: Policy) -> Iterator[Problem]:
        """Which of the addresses that this host needs, each with what it is, a block shuts off. `policy`: the
        host's, for blocks that have none of their own."""
        unknown = {address: what for address, what in needed.items() if self.at(address) is None}
        return self.table.caught(unknown, lambda block: (block.policy or policy).meaning.trap)

    @property
    def held(self) -> dict[str, Entry]:
        """What has its file gone and is too many to go, by file."""
        return {s: self._in_force[s] for s in self.removals} if self.removals.held else {}


def _changed(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> frozenset[str]:
    """Names of the entries that differ."""
    return frozenset(
        peer.name
        for source in before.keys() | after.keys()
        if before.get(source) != after.get(source)
        for peer in (before.get(source), after.get(source))
        if peer is not None
    )
