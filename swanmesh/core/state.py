"""What the core knows, in one place that its parts share."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from swanmesh.core.abilities import Abilities
from swanmesh.core.credentials.certificates import Certificates
from swanmesh.core.credentials.revocation import Revocations
from swanmesh.core.events import MeshEvent
from swanmesh.core.guard.keeping import Guard
from swanmesh.core.model import Peer, Settings
from swanmesh.core.pairs.pair import Pair, Refusals
from swanmesh.core.peers.blocks import BlockTable
from swanmesh.core.peers.early import EarlyPeers
from swanmesh.core.peers.members import Members
from swanmesh.core.peers.registry import PeerRegistry
from swanmesh.core.reasons import MISSING_CREDENTIALS, NONE, NOT_REACHED, Reason
from swanmesh.core.turns.admission import Admission
from swanmesh.core.turns.observation import ObservationSchedule
from swanmesh.core.turns.probing import Probing
from swanmesh.core.xfrm import Segmenting


@dataclass(slots=True)
class CharonState:
    """What is known of charon itself."""

    reachable: bool = False
    version: str = ""
    algorithms: frozenset[str] | None = None
    """Names of what it has plugins for; None as long as none has answered."""
    emptied: bool = False
    """It held nothing of ours when it answered: it has just started, and what its unit does then may come."""
    since: float = 0.0
    reason: Reason = NOT_REACHED
    """Why it is not reachable; empty while it is."""
    credentials_loaded: bool = False
    credentials_loading: bool = False
    """They are on their way."""
    credentials_refusals: Refusals = field(default_factory=Refusals)
    lists: frozenset[str] = frozenset()
    """Fingerprints of the revocation lists that it holds."""
    lists_loading: bool = False
    lists_refusals: Refusals = field(default_factory=Refusals)
    doubted: float = float("-inf")
    """When charon was last looked at since an authentication failed as if it lacked credentials."""

    @property
    def abilities(self) -> Abilities:
        return Abilities(self.version, self.algorithms)

    @property
    def unreachable(self) -> Reason:
        """Why nothing can be asked of it; empty if it can."""
        return NONE if self.reachable else self.reason.after("charon is not reachable")

    @property
    def lacks_credentials(self) -> Reason:
        """Why nothing can be initiated for want of credentials; empty if they are there."""
        if self.credentials_loaded:
            return NONE
        refused = self.credentials_refusals.reason
        return refused.after("charon refused the credentials") if refused else MISSING_CREDENTIALS


@dataclass(slots=True, kw_only=True)
class Mending:
    """An attempt to mend, and those before it that did not help."""

    pair: str
    at: float
    until: float
    """When it counts as failed, and may be tried again."""
    times: int
    holds_place: bool
    """Whether the pair has a place among the initiations for it."""


@dataclass(slots=True, kw_only=True)
class KernelState:
    """What is known of the kernel, and what of it is in doubt. All times on the core's clock."""

    watched: bool = False
    reason: str = ""
    """Why it cannot be watched; empty before that was tried."""
    look_at: float | None = None
    look_reason: Reason = NONE
    looking: float | None = None
    """When the look under way began."""
    earliest: float = 0.0
    flushed: frozenset[int] = frozenset()
    """CHILD_SAs that stood when the states were flushed: lacking states in the next look is proof."""
    deleted: set[str] = field(default_factory=set)
    """SPIs of states that went since, by anybody's hand."""
    deleted_due: float | None = None
    doubts: dict[str | int, float] = field(default_factory=dict)
    """When a look first lacked the policies of a pair (by name) or the states of a CHILD_SA (by its id)."""
    segmenting: tuple[Segmenting, ...] = ()
    """As the last look showed it."""
    mendings: dict[str | int, Mending] = field(default_factory=dict)
    """What was done about the ones that were proven, by the same keys, until a look shows that it helped."""

    def want(self, at: float, reason: Reason) -> None:
        if self.look_at is None or at < self.look_at:
            self.look_at, self.look_reason = at, reason

    @property
    def due(self) -> float | None:
        if not self.watched:
            return None
        times = [self.deleted_due] if self.deleted_due is not None else []
        if self.look_at is not None and self.looking is None:
            times.append(max(self.look_at, self.earliest))
        return min(times, default=None)


class Pairs:
    """The address pairs by connection name and by peer; which of them are to be decided on, and when."""

    def __init__(self) -> None:
        self._by_name: dict[str, Pair] = {}
        self._of_peer: dict[str, tuple[Pair, ...]] = {}
        self._marked: dict[str, None] = {}
        self._timers: list[tuple[float, str]] = []

    def __iter__(self) -> Iterator[Pair]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Pair | None:
        return self._by_name.get(name)

    def of(self, peer: str) -> list[Pair]:
        return list(self._of_peer.get(peer, ()))

    def peers(self) -> list[str]:
        return list(self._of_peer)

    def add(self, pair: Pair) -> Pair:
        self._by_name[pair.name] = pair
        self._of_peer[pair.peer] = (*self._of_peer.get(pair.peer, ()), pair)
        self.mark(pair)
        return pair

    def remove(self, pair: Pair) -> None:
        del self._by_name[pair.name]
        others = tuple(other for other in self._of_peer.pop(pair.peer) if other is not pair)
        if others:
            self._of_peer[pair.peer] = others

    def mark(self, pair: Pair) -> None:
        """Something changed: decide on it in the next step."""
        self._marked[pair.name] = None

    def mark_all(self) -> None:
        self._marked = dict.fromkeys(self._by_name)

    def schedule(self, pair: Pair, due: float | None) -> None:
        """Decide on it at `due` at the latest; None: only when something happens."""
        if due is not None and due != pair.timer:
            heapq.heappush(self._timers, (due, pair.name))
        pair.timer = due
        if len(self._timers) > 64 + 4 * len(self._by_name):
            self._timers = [(p.timer, p.name) for p in self._by_name.values() if p.timer is not None]
            heapq.heapify(self._timers)

    def take_marked(self, now: float) -> list[Pair]:
        """All pairs to decide on now: marked, or with their time come."""
        while self._timers and self._timers[0][0] <= now:
            due, name = heapq.heappop(self._timers)
            pair = self._by_name.get(name)
            if pair is not None and pair.timer == due:
                pair.timer = None
                self._marked[name] = None
        taken = [pair for name in self._marked if (pair := self._by_name.get(name)) is not None]
        self._marked = {}
        return taken

    @property
    def due(self) -> float | None:
        """When the next pair's time comes."""
        while self._timers:
            due, name = self._timers[0]
            pair = self._by_name.get(name)
            if pair is not None and pair.timer == due:
                return due
            heapq.heappop(self._timers)
        return None

    @property
    def marked(self) -> bool:
        return bool(self._marked)


@dataclass(slots=True, kw_only=True)
class State:
    """Everything that `Mesh` and the modules it calls share."""

    settings: Settings
    rng: random.Random
    registry: PeerRegistry
    admission: Admission
    observation: ObservationSchedule
    pairs: Pairs = field(default_factory=Pairs)
    certificates: Certificates = field(default_factory=Certificates)
    revocations: Revocations = field(default_factory=Revocations)
    early_peers: EarlyPeers = field(default_factory=EarlyPeers)
    charon: CharonState = field(default_factory=CharonState)
    kernel: KernelState = field(default_factory=KernelState)
    members: Members = field(default_factory=Members)
    members_of: BlockTable = field(default_factory=BlockTable)
    """The blocks that `members` were last compared with."""
    probing: Probing = field(default_factory=Probing)
    guard: Guard = field(default_factory=Guard)
    reload: dict[str, Reason] = field(default_factory=dict)
    """Names of peers whose connections are to be another way, and why, until the next step."""
    unloaded: set[str] = field(default_factory=set)
    """Connections, or their children, that charon's log said are unloaded, until the next step."""
    began: float | None = None
    """When the process began; None if that is not to count."""
    start_took: float = 0.0
    """Seconds from the start of the process to its first look at a charon that held nothing of ours: where
    all hosts start at once the others take about as long, and refuse what is initiated sooner. 0 later on."""
    observed_once: bool = False
    """Whether charon was looked at since this controller started: what is found then is no news."""
    hold: Reason = NONE
    """Why what charon holds of unknown peers is left alone: a file that could name them is unreadable."""
    down: set[str] = field(default_factory=set)
    """Names of the peers that the operator holds down."""
    called_up: set[str] = field(default_factory=set)
    """Names of the peers that the operator called up: a shunt found in charon no longer holds them down."""
    up: set[str] = field(default_factory=set)
    """Names of the peers that are up, every address pair of theirs."""
    leaving: dict[str, Peer] = field(default_factory=dict)
    """Peers whose file is gone and whose connections are being ended."""
    events: list[MeshEvent] = field(default_factory=list)

    def peer(self, name: str) -> Peer | None:
        """The peer of this name, by its file or as it was met under a block."""
        return self.registry.named(name) or self.members.get(name)

    def peers(self) -> list[Peer]:
        """All that are known: by their files, and of those met under blocks who proved who they are, or are
        held down."""
        met = (peer for peer in self.members if peer.proved or peer.name in self.down)
        return [*self.registry.peers.values(), *met]

    def identities(self) -> frozenset[str]:
        """The names that certificates of peers have."""
        return frozenset((*self.pairs.peers(), *(peer.proved for peer in self.members.proven)))

    def emit(self, kind: str, peer: Peer | None = None, reason: Reason = NONE) -> None:
        self.events.append(MeshEvent.of(kind, peer, reason))

    def fresh(self, pair: Pair, now: float, within: float) -> bool:
        """Whether a look of just now shows the pair; one that takes long is as fresh as looks get."""
        return pair.seen >= now - within - self.observation.took
