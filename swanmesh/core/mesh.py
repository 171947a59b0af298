"""The core's one door: facts go in with `now`, `step` gives back what to do.

    files ──▶ configure, update_peers ─▶ PeerRegistry ┐
    charon ─▶ charon_back, observed, event ───────────┼─▶ inputs/ ─▶ State ─▶ decide/ ─▶ step() ─▶ actions
    kernel ─▶ kernel_observed, kernel_event ──────────┤     ▲                               │
    people ─▶ command, confirm ───────────────────────┘     └───────── done: outcomes ◀─────┘

Inputs note facts and mark the pairs they concern; `step` decides on the marked pairs alone, so that work is
proportional to the change. All times are seconds on one clock that never goes back and counts time asleep.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swanmesh.core.abilities import Abilities
from swanmesh.core.actions import (
    Action,
    Initiate,
)
from swanmesh.core.credentials.revocation import RevocationList
from swanmesh.core.decide.credentials import load_what_is_missing, missing_due
from swanmesh.core.decide.rules import FRESH, decide
from swanmesh.core.events import MeshEvent
from swanmesh.core.guard.keeping import Guard
from swanmesh.core.inputs.authorities import authorities_changed
from swanmesh.core.inputs.charon import charon_back, charon_lost, take_event
from swanmesh.core.inputs.data_path import data_path_step, ready, take_heard, take_traffic
from swanmesh.core.inputs.files import everybody, host_changed, peers_changed
from swanmesh.core.inputs.guard import change_guard, open_pair
from swanmesh.core.inputs.holdings import forget_unloaded, take_connections, take_credentials, take_sas
from swanmesh.core.inputs.kernel import forget_kernel_doubts, kernel_step, take_kernel, take_kernel_event
from swanmesh.core.inputs.members import members_due, step_members
from swanmesh.core.inputs.operator import hold_up_or_down, rekey
from swanmesh.core.inputs.outcomes import begin_action, take_outcome
from swanmesh.core.inputs.removal import (
    confirm,
    forget,
    forget_gone,
    look_at_unknown,
    prefer_what_is_held,
    take_files,
)
from swanmesh.core.inputs.revocation import confirm_lists, take_lists
from swanmesh.core.model import AddressPair, Block, Settings
from swanmesh.core.observed import Event, Holdings, IkeSa
from swanmesh.core.pairs.data_path import Heard
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.peers.registry import Entry, PeerRegistry
from swanmesh.core.reasons import (
    LOOK_FAILED,
    NONE,
    SETTINGS_CHANGED,
    WAITING_FOR_GUARD,
    WAITING_FOR_PLACE,
    Reason,
)
from swanmesh.core.state import State
from swanmesh.core.turns.admission import Admission, rank_of
from swanmesh.core.turns.observation import ObservationSchedule
from swanmesh.core.xfrm import KernelEvent, KernelHoldings


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now, and what to tell others."""

    actions: tuple[Action, ...]
    events: tuple[MeshEvent, ...]


class Mesh:
    """One host's view of the mesh, and its decisions."""

    def __init__(
        self, settings: Settings, *, seed: int, began: float | None = None, kernel: bool = False
    ) -> None:
        """`began`: when the process began, on the core's clock, if that is to count. `kernel`: whether word
        of the kernel will come, for which what the guard has to cover first waits."""
        self.state = State(
            settings=settings,
            rng=random.Random(seed),  # noqa: S311  (spreads load; nothing is secret about it)
            registry=PeerRegistry(settings.host),
            admission=Admission(settings.initiation),
            observation=ObservationSchedule(settings.initiation.resync),
            guard=Guard(expected=kernel),
            began=began,
        )
        self.state.registry.weigh = self._weigh
        self._asked: list[Action] = []
        host_changed(self.state, 0.0)

    def _weigh(self, entry: Entry) -> int:
        """How many hosts go with a file."""
        hosts = (
            sum(peer.block == entry.name for peer in self.state.members) if isinstance(entry, Block) else 1
        )
        return max(1, hosts)

    # Inputs.

    def configure(self, settings: Settings, now: float) -> None:
        """`swanmesh.yaml` or the credentials changed."""
        state = self.state
        before = state.settings
        state.settings = settings
        if settings.credentials != before.credentials:
            state.charon.credentials_loaded = False
            authorities_changed(state, before.credentials)
        names = state.registry.set_host(settings.host) | everybody(state)
        state.members.review_all()
        state.admission.configure(settings.initiation)
        state.observation.pace(settings.initiation.resync, now)
        if settings.addresses != before.addresses:
            for pair in state.pairs:
                pair.associations.addresses_match = settings.addresses == "match"
            state.pairs.mark_all()
        host_changed(state, now)
        peers_changed(state, names, now, NONE if settings == before else SETTINGS_CHANGED)
        look_at_unknown(state)

    def update_peers(
        self,
        put: Iterable[Entry],
        drop: Iterable[str],
        now: float,
        *,
        gone: Iterable[str] = (),
        broken: Iterable[str] = (),
    ) -> frozenset[str]:
        """Files of peers or blocks changed. `drop`: files that were removed on purpose, whose peers go at
        once. `gone`: files that are not there any more; their peers go after a while, unless too many would.
        `broken`: files that say nothing valid, so that what held before goes on. Returns the names of what
        changed."""
        names = take_files(self.state, put, drop, now, gone, broken)
        forget_gone(self.state)
        return names

    def hold(self, doubt: Reason) -> None:
        """Leave alone what charon holds of unknown peers, and remove nobody for want of a file, for as long
        as there is a `doubt` whether the files tell of everybody."""
        self.state.registry.removals.doubt = doubt
        look_at_unknown(self.state)

    def confirm(self, now: float) -> list[str]:
        """Let the removals happen that are held. Returns the names of the peers that go."""
        names = confirm(self.state, now)
        forget_gone(self.state)
        return names

    def revocation_lists(
        self, lists: Iterable[RevocationList], now: float, before: Mapping[str, bool] | None = None
    ) -> None:
        """All that is known of them: the newest of each authority comes into force, unless it would take away
        too many peers at once. `before`: of those that were there before this began, by fingerprint, whether
        they were in force, or held back."""
        take_lists(self.state, lists, now, before or {})

    def confirm_lists(self, now: float) -> list[str]:
        """Let lists come into force that are held. Returns the names of the peers that they end."""
        return confirm_lists(self.state, now)

    def charon_back(
        self, version: str, holdings: Holdings, now: float, algorithms: frozenset[str] | None = None
    ) -> None:
        """charon answers. `algorithms`: names of what it has plugins for, if that is known."""
        state = self.state
        news = state.observed_once
        charon_back(state, holdings, Abilities(version, algorithms), now)
        if not news:
            prefer_what_is_held(state, now)
        look_at_unknown(state, news=True)
        forget_kernel_doubts(state)
        state.kernel.want(now, Reason("charon-answers", "charon answers"))
        state.observed_once = True
        if news:
            state.emit("charon-back", reason=Reason("charon-answers", f"charon {version} answers"))

    def charon_lost(self, reason: Reason, now: float) -> None:
        was = self.state.charon.reachable
        charon_lost(self.state, reason, now)
        forget_kernel_doubts(self.state)
        self._asked.clear()
        if was:
            self.state.emit("charon-lost", reason=reason)

    def observed(self, what: Holdings | tuple[IkeSa, ...] | None, now: float) -> None:
        """The outcome of ObserveAll or ObserveSas; None if it failed."""
        state = self.state
        began = state.observation.began
        full = isinstance(what, Holdings)
        touched = state.observation.finished(now, full=full)
        if what is None:
            state.observation.want_all(now + 5.0, LOOK_FAILED)
            return
        if isinstance(what, Holdings):
            take_connections(state, what.connections, now)
            take_credentials(state, what.credentials)
            what = what.sas
        take_sas(state, what, now, began, touched)

    def event(self, event: Event, now: float) -> None:
        take_event(self.state, event, now)

    def done(self, action: Action, error: str | None, now: float) -> None:
        """The outcome of an action other than a look; `error` None means done."""
        take_outcome(self.state, action, error, now)

    def kernel_event(self, event: KernelEvent, now: float) -> None:
        take_kernel_event(self.state, event, now)

    def kernel_observed(self, what: KernelHoldings | None, now: float) -> None:
        """The outcome of ObserveKernel; None if it failed."""
        take_kernel(self.state, what, now)

    def probes_ready(self, can: bool, now: float) -> None:
        """Whether probes can be sent from now on."""
        ready(self.state, can, now)

    def watched(self, addresses: AddressPair) -> bool:
        """Whether a pair of these addresses has an association."""
        return addresses in self.state.probing.pairs

    def heard(self, heard: Iterable[Heard], now: float) -> None:
        """What came in for the service that answers probes."""
        take_heard(self.state, heard, now)

    def traffic_observed(self, packets: Mapping[str, int] | None, now: float) -> None:
        """The outcome of ObserveTraffic: packets by SPI; None if it failed."""
        take_traffic(self.state, packets, now)

    def wall_clock(self, offset: float) -> None:
        """What the wall's clock is ahead of this core's. Where it was set, what certificates call for is
        decided anew."""
        known = self.state.certificates.offset
        if known is None or abs(offset - known) > 1.0:
            self.state.certificates.offset = offset
            self.state.pairs.mark_all()

    def command(self, command: str, name: str, now: float) -> None:
        """`up`, `down` or `rekey` a peer. Raises KeyError for one unknown."""
        if command == "rekey":
            self._asked += rekey(self.state, name)
        else:
            hold_up_or_down(self.state, name, now, down=command == "down")

    # Output.

    def step(self, now: float) -> Step:
        """Decide on all that changed or whose time has come. Call again at `due` at the latest."""
        state = self.state
        actions: list[Action] = []
        removal = state.registry.removals.due
        if removal is not None and removal <= now:
            self.update_peers((), (), now)
        if state.charon.reachable:
            actions += load_what_is_missing(state, now)
            actions += self._asked
            self._asked = []
            actions += data_path_step(state, now)
        forget_unloaded(state, now)
        while state.reload:
            name, why = state.reload.popitem()
            peers_changed(state, [name], now, why)
        step_members(state, now)
        for pair in state.pairs.take_marked(now):
            self._decide(pair, now, actions)
        if state.charon.reachable:
            self._admit_from_line(now, actions)
            actions += [look for look in (state.observation.step(now),) if look is not None]
        else:
            forget_gone(self.state)
        # What closes comes before what opens, and before what is loaded.
        kernel = (change_guard(state, now), kernel_step(state, now))
        actions = [*(action for action in kernel if action is not None), *actions]
        events, state.events = tuple(state.events), []
        return Step(tuple(actions), events)

    @property
    def due(self) -> float | None:
        """When `step` is due if nothing happens before; 0 means at once."""
        state = self.state
        removal = state.registry.removals.due
        if state.pairs.marked or state.unloaded or members_due(state):
            return 0.0
        always = (removal, state.guard.due, state.kernel.due)
        if not state.charon.reachable:
            return min((at for at in always if at is not None), default=None)
        dues = (
            missing_due(state),
            state.pairs.due,
            state.admission.due,
            state.observation.due,
            state.probing.due,
            *always,
        )
        times = [at for at in dues if at is not None]
        return min(times, default=None)

    def _decide(self, pair: Pair, now: float, actions: list[Action]) -> None:
        opened = open_pair(self.state, pair, now)
        if pair.busy:
            return
        state = self.state
        pair.decision = decision = decide(pair, state, now)
        if decision.look:
            state.observation.want(decision.look_at, decision.look)
        if decision.blocked == WAITING_FOR_PLACE:
            state.admission.wait(pair.name, rank_of(pair.attempt, initiator=pair.initiator, up=pair.up), now)
        if decision.blocked == WAITING_FOR_GUARD:
            state.guard.waiting.add(pair.name)
        if decision.action is not None and decision.ready:
            begin_action(state, pair, decision.action, now)
            actions.append(decision.action)
        elif now >= pair.refusals.retry_at:
            pair.refusals.reason, pair.refusals.count = NONE, 0
        due = pair.attempt.look_at if isinstance(decision.action, Initiate) and pair.busy else decision.due
        dues = [at for at in (due, opened) if at is not None]
        state.pairs.schedule(pair, min(dues, default=None))
        forget(state, pair)

    def _admit_from_line(self, now: float, actions: list[Action]) -> None:
        state = self.state
        fresh = state.observation.fresh(now, FRESH)
        while (name := state.admission.next(now, fresh=fresh)) is not None:
            pair = state.pairs.get(name)
            if pair is not None:
                self._decide(pair, now, actions)
            if pair is None or not pair.busy:
                state.admission.release(name)
        if state.admission.look_at is not None:
            pair = state.pairs.get(state.admission.look_for)
            look = Reason("before-initiating", f"before initiating to {pair.peer if pair else 'others'}")
            state.observation.want(state.admission.look_at, look)
