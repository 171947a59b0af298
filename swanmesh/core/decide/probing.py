"""Which pairs are probed, and when next."""

from __future__ import annotations

from heapq import heappop

from swanmesh.core import reasons
from swanmesh.core.actions import Action, LimitPath, Probe
from swanmesh.core.decide.encapsulation import insisted
from swanmesh.core.encapsulation import Mode
from swanmesh.core.model import AddressPair
from swanmesh.core.pairs.data_path import DOUBT, ECHOES
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.state import State
from swanmesh.core.turns import probing as pace


def probes(state: State, now: float) -> list[Action]:
    """Those that are due, as many as may be sent."""
    probing = state.probing
    found, _ = _sent(state, probing.doubtful, int(pace.DOUBT_RATE * pace.TICK), now)
    # Who carries traffic is not asked, which a look under way may show.
    if now >= probing.next_quiet and not probing.looks(now):
        quiet, left = _sent(state, probing.quiet, pace.QUIET_RATE, now)
        found += quiet
        if not left:
            probing.next_quiet = now + 1.0
    return found


def _sent(state: State, heap: list[tuple[float, str]], most: int, now: float) -> tuple[list[Action], int]:
    """The probes of those of the heap that are due, and how many more might have been sent."""
    found: list[Action] = []
    while heap and heap[0][0] <= now and most:
        due, name = heappop(heap)
        pair = state.pairs.get(name)
        if pair is None or pair.path.due != due:
            continue
        most -= 1
        if (probe := _probe(state, pair, now)) is not None:
            found.append(probe)
        schedule(state, pair, now)
    return found, most


def _probe(state: State, pair: Pair, now: float) -> Action | None:
    """None where something came in lately: whoever hears nothing of this host says so itself."""
    path, interval = pair.path, state.settings.probe.interval
    if pair.addresses is None or not path.watched:
        return None
    if pair.udp.mode is not Mode.PLAIN:
        state.probing.doubted[pair.name] = None
    packet = None
    if not state.settings.path_mtu:
        forget_limit(state, pair)
    if state.settings.path_mtu and not path.suspect:
        packet = pair.mtu.next(now, path.answered, state.settings.probe.again)
    if pair.mtu.busy:
        path.urgent_until = now + 2 * pace.AGAIN
    note_limit(state, pair)
    heard_lately = path.probes == 0 and now < path.heard + interval * 0.8
    if heard_lately and now >= path.urgent_until and not path.basis_wanted:
        return None
    echoes = ECHOES if path.probes else int(path.basis_wanted)
    path.tried += path.basis_wanted
    path.probed(now)
    if path.probes > 1 and (path.known or state.settings.automatic_encapsulation):
        state.probing.doubted[pair.name] = None
    silence = max(path.silence, insisted(pair, now))
    return Probe(
        connection=pair.name,
        peer=pair.peer,
        addresses=pair.addresses,
        echoes=echoes,
        silence=int(silence) if silence >= DOUBT else 0,
        packet=packet,
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
    if doubtful:
        path.due = now + pace.AGAIN
    elif path.probes:
        path.due = now + interval * (0.9 + 0.2 * state.rng.random())
    elif path.basis_wanted and not path.tried:
        path.due = now + state.rng.random()
    else:
        path.due = max(now, path.heard + interval * (0.9 + 0.2 * state.rng.random()))
    probing.push(path.due, pair.name, doubtful=doubtful and path.known)


def follow(state: State, pair: Pair, now: float) -> None:
    """After anything about the pair's associations changed: it is probed while it has one that counts."""
    path, works = pair.path, pair.associations.works
    if works and not path.watched and pair.addresses is not None:
        path.begin(now)
        pair.mtu.begin(now)
        state.probing.pairs[pair.addresses] = pair.name
        schedule(state, pair, now)
    elif not works and path.watched and not pair.associations.rekeying:
        path.end()
        if pair.connection is None:
            forget_limit(state, pair)
        if pair.addresses is not None:
            state.probing.pairs.pop(pair.addresses, None)


def note_limit(state: State, pair: Pair) -> None:
    """The kernel is to be told how large packets of the pair may be, if that is another size now."""
    mtu = pair.mtu
    if not mtu.changed or not isinstance(pair.addresses, AddressPair):
        return
    mtu.changed = False
    state.probing.limits[pair.name] = LimitPath(
        connection=pair.name,
        peer=pair.peer,
        addresses=pair.addresses,
        largest=mtu.limit,
        believed=mtu.believed,
        reason=mtu.reason or reasons.LARGE_PASS,
    )
    state.pairs.mark(pair)


def forget_limit(state: State, pair: Pair) -> None:
    """The kernel is left to itself about the pair."""
    if pair.mtu.limit:
        pair.mtu.limit, pair.mtu.changed = 0, True
        note_limit(state, pair)
