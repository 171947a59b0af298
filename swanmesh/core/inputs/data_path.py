"""What probes and counters tell of the data path, taken in; and the probes and looks that are due."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from swanmesh.core import reasons
from swanmesh.core.actions import Action, ObserveTraffic
from swanmesh.core.decide.encapsulation import agree, hoped_for, review
from swanmesh.core.decide.probing import forget_limit, note_limit, probes, schedule
from swanmesh.core.inputs.transitions import judge
from swanmesh.core.pairs.data_path import MEND_AFTER, Heard
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import Reason
from swanmesh.core.state import State
from swanmesh.core.turns.probing import AGAIN, TICK

_URGENT = 2.0
"""Seconds for which a pair is asked at once after something of it was on trial."""
_FRESH = 3.0
"""Seconds: a look at charon this recent tells whether it waits for a sign of life."""


def ready(state: State, can: bool, now: float) -> None:
    """Whether probes can be sent from now on."""
    state.probing.ready = can
    for pair in state.pairs:
        schedule(state, pair, now)
        if not can:
            forget_limit(state, pair)


def take_heard(state: State, heard: Iterable[Heard], now: float) -> None:
    for one in heard:
        pair = _pair(state, one)
        if pair is None:
            continue
        if one.kind == "sent":
            pair.mtu.sent(one.size)
            continue
        pair.path.take(one, now)
        if one.size:
            pair.mtu.take(one.size, now)
            note_limit(state, pair)
        if pair.path.denied:
            state.probing.doubted[pair.name] = None
        _relieve(state, pair, now)


def take_traffic(state: State, packets: Mapping[str, int] | None, now: float) -> None:
    """Packets by SPI of all the kernel's states; None if the look failed."""
    began = state.probing.finished(now)
    if packets is None:
        return
    for name in list(state.probing.pairs.values()):
        pair = state.pairs.get(name)
        if pair is not None:
            count(
                state,
                pair,
                [
                    (child.spi_in, packets.get(child.spi_in, 0), packets.get(child.spi_out, 0))
                    for sa in pair.sas.values()
                    for child in sa.children
                ],
                began,
                now,
            )


def count(state: State, pair: Pair, counts: Iterable[tuple[str, int, int]], began: float, now: float) -> None:
    """What a look at the counters that began at `began` shows of one pair."""
    if pair.path.watched:
        pair.path.count(counts, began)
        _relieve(state, pair, now)


def _relieve(state: State, pair: Pair, now: float) -> None:
    """Something came in: what was said of it is over."""
    path = pair.path
    agree(state, pair, now)
    if path.dead and not path.lost(now) and not path.in_doubt:
        path.dead, path.mended = reasons.NONE, 0
        judge(state, pair, now)


def data_path_step(state: State, now: float) -> list[Action]:
    """The probes that are due, the look that they need, and the verdicts that follow from those before."""
    probing = state.probing
    actions: list[Action] = list(probing.limits.values())
    probing.limits.clear()
    if not probing.ready or now < probing.next_round:
        return actions
    due = probing.due
    if due is None or now < due:
        return actions
    probing.next_round = now + TICK
    interval = state.settings.probe.interval
    if state.kernel.watched and probing.look_wanted(now, interval / 2 if not probing.doubted else 0.0):
        probing.looking = now
        actions.append(ObserveTraffic(reason=reasons.DATA_PATH))
    actions += probes(state, now)
    for name in list(probing.doubted):
        pair = state.pairs.get(name)
        if pair is None or not (pair.path.in_doubt or pair.udp.active or now < pair.path.urgent_until):
            del probing.doubted[name]
        if pair is not None and pair.path.watched:
            _judge(state, pair, now)
    return actions


def _judge(state: State, pair: Pair, now: float) -> None:
    path = pair.path
    if path.suspect and not _ike_lives(state, pair, now):
        return
    review(state, pair, now)
    if pair.udp.active:
        path.urgent_until = max(path.urgent_until, now + _URGENT)
    if now < path.urgent_until and path.due is not None and path.due > now + 2 * AGAIN:
        schedule(state, pair, now)
    lost = path.lost(now)
    if not lost or path.dead or hoped_for(state, pair, now):
        return
    path.dead, path.mend_at = lost, now + MEND_AFTER
    judge(state, pair, now, lost)


def _ike_lives(state: State, pair: Pair, now: float) -> bool:
    """Whether charon waits for no sign of life: where IKE has no answer either, it says so soon."""
    if not state.fresh(pair, now, _FRESH):
        state.observation.want(now, Reason("data-path", f"no data passes with {pair.peer}"))
        return False
    return not any("IKE_DPD" in sa.tasks_active for sa in pair.associations.counting)


def _pair(state: State, heard: Heard) -> Pair | None:
    name = state.probing.pairs.get(heard.addresses)
    pair = state.pairs.get(name) if name is not None else None
    return pair if pair is not None and pair.path.watched else None
