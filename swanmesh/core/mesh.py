"""The core's one door: facts go in with `now`, `step` gives back what to do.

    files ──▶ configure, update_peers ─▶ PeerBook ─▶ desire ──┐
    charon ─▶ charon_back, observed ───▶ facts ───────────────┼─▶ Pairs ─▶ plan.decide ─▶ step() ─▶ actions
              event                   ─▶ facts, transitions ──┤             │
    people ─▶ command ────────────────▶ desire ───────────────┤   Admission, Looks
    edge ───▶ done ───────────────────▶ outcomes ─────────────┘

Inputs note facts and mark the pairs they concern; `step` decides on the marked pairs alone, so that work is
proportional to the change. All times are seconds on one clock that never goes back and counts time asleep.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from swanmesh.core.actions import (
    MISSING_CREDENTIALS,
    Action,
    Initiate,
    LoadCredentials,
    ObserveAll,
    ObserveSas,
    RekeyChild,
    RekeyIke,
    load_credentials,
)
from swanmesh.core.decide.admission import Admission
from swanmesh.core.decide.observation import Looks
from swanmesh.core.decide.rules import Decision, decide
from swanmesh.core.inputs.charon import (
    charon_back,
    charon_lost,
    take_connections,
    take_credentials,
    take_event,
    take_sas,
)
from swanmesh.core.inputs.files import host_changed, peers_changed
from swanmesh.core.inputs.kernel import forget_kernel_doubts, kernel_step, take_kernel, take_kernel_event
from swanmesh.core.inputs.operator import hold_up_or_down, rekey
from swanmesh.core.inputs.outcomes import take_outcome
from swanmesh.core.model import Peer, Settings
from swanmesh.core.observed import Event, Holdings, IkeSa
from swanmesh.core.pair import Pair
from swanmesh.core.peers import PeerBook
from swanmesh.core.state import MeshEvent, State
from swanmesh.core.xfrm import KernelEvent, KernelHoldings

_FRESH = 3.0
"""Seconds: a look this recent tells whether charon or the peer already tries, before a pair is initiated that
may have been (one tried before, or one that the peer should have initiated); and what stands, before a
duplicate is ended."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now, and what to tell others."""

    actions: tuple[Action, ...]
    events: tuple[MeshEvent, ...]


class Mesh:
    """One host's view of the mesh, and its decisions."""

    def __init__(self, settings: Settings, *, seed: int) -> None:
        self.state = State(
            settings=settings,
            rng=random.Random(seed),  # noqa: S311  (spreads load; nothing is secret about it)
            book=PeerBook(settings.host),
            admission=Admission(settings.initiation.in_flight),
            looks=Looks(settings.initiation.resync),
        )
        self._asked: list[Action] = []
        self._loading_credentials = False
        host_changed(self.state, 0.0)

    # Inputs.

    def configure(self, settings: Settings, peers: Iterable[Peer], now: float) -> None:
        """`swanmesh.yaml` or the credentials changed. `peers`: all that the files hold, as after a scan."""
        state = self.state
        before = state.settings
        state.settings = settings
        if settings.credentials != before.credentials:
            state.charon.credentials_loaded = False
        gone = {peer.name: peer for peer in state.book.peers.values()}
        names = set(gone)
        state.book = PeerBook(settings.host)
        state.book.update(put=peers)
        state.leaving |= {name: peer for name, peer in gone.items() if state.book.named(name) is None}
        state.admission.limit = settings.initiation.in_flight
        state.looks.resync = settings.initiation.resync
        names |= {peer.name for peer in state.book.peers.values()}
        host_changed(state, now)
        peers_changed(state, names, now, "" if settings == before else "settings changed")
        self._forget_gone()

    def update_peers(self, put: Iterable[Peer], drop: Iterable[str], now: float) -> frozenset[str]:
        """Peer files changed. `drop`: files that are gone. Returns the names of the peers that changed."""
        state = self.state
        before = {source: state.book.peers.get(source) for source in drop}
        names = state.book.update(put, before)
        for gone in before.values():
            if gone is not None and state.book.named(gone.name) is None:
                state.leaving[gone.name] = gone
        peers_changed(state, names, now)
        self._forget_gone()
        return names

    def hold(self, reason: str) -> None:
        """Leave alone what charon holds of unknown peers for as long as `reason` is not empty."""
        if reason == self.state.hold:
            return
        self.state.hold = reason
        for pair in self.state.pairs:
            if pair.connection is None and pair.peer not in self.state.leaving:
                pair.stays = reason
                self.state.pairs.mark(pair)

    def charon_back(self, version: str, holdings: Holdings, now: float) -> None:
        state = self.state
        news = state.observed_once
        self._loading_credentials = False
        charon_back(state, holdings, version, now)
        forget_kernel_doubts(state)
        state.kernel.want(now, "charon answers")
        state.observed_once = True
        if news:
            state.tell("charon-back", reason=f"charon {version} answers")

    def charon_lost(self, reason: str, now: float) -> None:
        was = self.state.charon.reachable
        charon_lost(self.state, reason, now)
        forget_kernel_doubts(self.state)
        self._loading_credentials = False
        self._asked.clear()
        if was:
            self.state.tell("charon-lost", reason=reason)

    def observed(self, what: Holdings | tuple[IkeSa, ...] | None, now: float) -> None:
        """The outcome of ObserveAll or ObserveSas; None if it failed."""
        state = self.state
        began = state.looks.began
        full = isinstance(what, Holdings)
        touched = state.looks.finished(now, full=full)
        if what is None:
            state.looks.want_all(now + 5.0, "the last look failed")
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
        if isinstance(action, LoadCredentials):
            self._loading_credentials = False
        take_outcome(self.state, action, error, now)

    def kernel_event(self, event: KernelEvent, now: float) -> None:
        take_kernel_event(self.state, event, now)

    def kernel_observed(self, what: KernelHoldings | None, now: float) -> None:
        """The outcome of ObserveKernel; None if it failed."""
        take_kernel(self.state, what, now)

    def suspect(self, reason: str, now: float) -> None:
        """Something outside hints that charon no longer holds what it should: look at all of it."""
        self.state.looks.want_all(now, reason)

    def command(self, command: str, name: str, now: float) -> str:
        """`up`, `down` or `rekey` a peer. Returns what follows, in words. Raises KeyError for one unknown."""
        if command == "rekey":
            asked = rekey(self.state, name)
            self._asked += asked
            count = sum(isinstance(action, RekeyIke) for action in asked)
            return f"rekeying {count} association{'s' if count != 1 else ''}"
        return hold_up_or_down(self.state, name, now, down=command == "down")

    # Output.

    def step(self, now: float) -> Step:
        """Decide on all that changed or whose time has come. Call again at `due` at the latest."""
        state = self.state
        actions: list[Action] = []
        if state.charon.reachable:
            actions += self._credentials(now)
            actions += self._asked
            self._asked = []
            for pair in state.pairs.take_marked(now):
                self._decide(pair, now, actions)
            while (name := state.admission.next_in_line()) is not None:
                pair_in_line = state.pairs.get(name)
                if pair_in_line is not None:
                    self._decide(pair_in_line, now, actions)
            actions += [look for look in (state.looks.step(now), kernel_step(state, now)) if look is not None]
        else:
            self._forget_gone()
        events, state.events = tuple(state.events), []
        return Step(tuple(actions), events)

    @property
    def due(self) -> float | None:
        """When `step` is due if nothing happens before; 0 means at once."""
        state = self.state
        if not state.charon.reachable:
            return None
        if state.pairs.marked:
            return 0.0
        credentials = None
        if not state.charon.credentials_loaded and not self._loading_credentials:
            credentials = state.charon.credentials_at
        dues = (state.pairs.due, state.looks.due, state.kernel.due, credentials)
        times = [at for at in dues if at is not None]
        return min(times, default=None)

    def _decide(self, pair: Pair, now: float, actions: list[Action]) -> None:
        if pair.busy:
            return
        decision = decide(pair, now, self.state.settings.initiation)
        action = decision.action
        if decision.fresh and not self._fresh(pair, now):
            self.state.looks.want(now, f"before a duplicate of {pair.peer} is ended")
            action, decision = None, Decision(due=now + _FRESH)
        elif isinstance(action, Initiate):
            action, decision = self._admit(pair, action, decision, now)
        elif isinstance(action, RekeyChild) and not self.state.admission.take(pair.name):
            action = None
        elif pair.in_flight is not None and now >= pair.look_at:
            self.state.looks.want(now, f"no outcome of the initiation to {pair.peer}")
        elif decision.due is not None and pair.under_way and pair.in_flight is None and not pair.up:
            self.state.looks.want(decision.due, f"an exchange with {pair.peer} is under way")
        if pair.error and action is None and now >= pair.retry_at:
            pair.error, pair.failures = "", 0
        if action is not None:
            pair.busy = True
            actions.append(action)
        self.state.pairs.schedule(pair, decision.due)
        self._forget(pair)

    def _admit(
        self, pair: Pair, action: Initiate, decision: Decision, now: float
    ) -> tuple[Initiate | None, Decision]:
        """Initiate only with credentials loaded, nothing under way already, and a place free."""
        state = self.state
        if not state.charon.credentials_loaded:
            return None, Decision(
                reason=state.charon.credentials_error or "the credentials are not loaded yet"
            )
        if (pair.attempts or not pair.ours) and not self._fresh(pair, now):
            state.looks.want(now, f"before initiating to {pair.peer}")
            return None, Decision(due=now + _FRESH, reason=decision.reason)
        if not state.admission.take(pair.name):
            return None, Decision(reason="waiting for other initiations to end")
        pair.in_flight, pair.look_at = now, now + state.settings.initiation.attempt_look
        pair.diagnoses.clear()
        return action, Decision(due=pair.look_at, reason=decision.reason)

    def _fresh(self, pair: Pair, now: float) -> bool:
        """Whether a look of just now shows the pair; one that takes long is as fresh as looks get."""
        return pair.seen >= now - _FRESH - self.state.looks.took

    def _credentials(self, now: float) -> list[Action]:
        charon = self.state.charon
        if charon.credentials_loaded or self._loading_credentials or now < charon.credentials_at:
            return []
        self._loading_credentials = True
        mine = self.state.settings.credentials
        reason = charon.credentials_error or MISSING_CREDENTIALS
        return [load_credentials(mine, reason)]

    def _forget(self, pair: Pair) -> None:
        """A pair that is neither wanted nor held by charon is over; with its last one its peer is."""
        state = self.state
        if pair.connection is not None or pair.busy or pair.loaded is not None or pair.sas:
            return
        state.pairs.remove(pair)
        if not state.pairs.of(pair.peer):
            self._tell_removed(pair.peer)

    def _forget_gone(self) -> None:
        """Peers that left without having had a pair, under the policy `off` for one."""
        for name in list(self.state.leaving):
            if not self.state.pairs.of(name):
                self._tell_removed(name)

    def _tell_removed(self, name: str) -> None:
        peer = self.state.leaving.pop(name, None)
        if peer is not None:
            self.state.tell("peer-removed", peer, "its file is gone")


__all__ = ["Mesh", "MeshEvent", "ObserveAll", "ObserveSas", "Step"]
