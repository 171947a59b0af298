"""Which pairs are probed, and when next."""

from __future__ import annotations

from heapq import heappop

from swanmesh.core import probing as pace
from swanmesh.core import reasons
from swanmesh.core.actions import Action, Probe
from swanmesh.core.data_path import DOUBT, ECHOES
from swanmesh.core.decide.encapsulation import insisted
from swanmesh.core.encapsulation import Mode
from swanmesh.core.pair import Pair
from swanmesh.core.state import State


def probes(state: State, now: float) -> list[Action]:
    probing, found = state.probing, []
    for heap, rate in ((probing.doubtful, pace.DOUBT_RATE), (probing.quiet, pace.QUIET_RATE)):
        if heap is probing.quiet and probing.looks(now):
            break  # who carries traffic is not asked
        left = max(1, int(rate * pace.TICK))
        while heap and heap[0][0] <= now and left:
            due, name = heappop(heap)
            pair = state.pairs.get(name)
            if pair is None or pair.path.due != due:
                continue
            left -= 1
            if (probe := _probe(state, pair, now)) is not None:
                found.append(probe)
            schedule(state, pair, now)
    return found


def _probe(state: State, pair: Pair, now: float) -> Action | None:
    """None where something came in lately: whoever hears nothing of this host says so itself."""
    path, interval = pair.path, state.settings.probe.interval
    if pair.addresses is None or not path.watched:
        return None
    if pair.udp.mode is not Mode.PLAIN:
        state.probing.doubted[pair.name] = None
    if (
        path.probes == 0
        and now >= path.urgent_until
        and now < path.heard + interval * 0.8
        and not path.basis_wanted
    ):
        return None
    echoes = ECHOES if path.probes else int(path.basis_wanted)
    path.tried += path.basis_wanted
    path.probed(now)
    if path.probes > 1:
        state.probing.doubted[pair.name] = None
    silence = max(path.silence, insisted(pair, now))
    return Probe(
        connection=pair.name,
        peer=pair.peer,
        addresses=pair.addresses,
        echoes=echoes,
        silence=int(silence) if silence >= DOUBT else 0,
        reason=reasons.DATA_PATH,
    )


def schedule(state: State, pair: Pair, now: float) -> None:
    path, probing = pair.path, state.probing
    if not path.watched or not probing.ready or pair.addresses is None:
        path.due = None
        return
    interval = state.settings.probe.interval
    doubtful = 0 < path.probes < pace.PATIENT or now < path.urgent_until
    # Who has never been heard may be old, and mute: those wait for their turn among the quiet ones.
    known = path.echoes or path.speaks
    if doubtful:
        path.due = now + pace.AGAIN
    elif path.probes:
        path.due = now + interval * (0.9 + 0.2 * state.rng.random())
    elif path.basis_wanted and not path.tried:
        path.due = now + state.rng.random()
    else:
        path.due = max(now, path.heard + interval * (0.9 + 0.2 * state.rng.random()))
    probing.push(path.due, pair.name, doubtful=doubtful and known)


def follow(state: State, pair: Pair, now: float) -> None:
    """After anything about the pair's associations changed: it is probed while it has one that counts."""
    path, works = pair.path, pair.associations.works
    if works and not path.watched and pair.addresses is not None:
        path.begin(now)
        state.probing.pairs[pair.addresses] = pair.name
        schedule(state, pair, now)
    elif not works and path.watched and not pair.associations.rekeying:
        path.end()
        if pair.addresses is not None:
            state.probing.pairs.pop(pair.addresses, None)
