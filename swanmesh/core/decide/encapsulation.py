"""`encapsulation: auto`: ESP goes inside UDP where it does not pass by itself, and by itself again later.

Two ends come to agree on it without a word. Either can bring UDP about alone: it looks NATed to the other,
and charon at the other end goes along. So each pair is in one of three modes, and what is loaded into charon
tells which, so that a controller that begins anew goes on as the last one left off:

    plain      ESP by itself. A peer that looks NATed is refused: it could move the association anywhere.
    forced     this host brings UDP about, since nothing passed through the pair. It tries ESP now and then.
    accepted   the peer brings it about, at a time when nothing passed here either, or this host tries ESP.

                     nothing comes in, IKE lives                nothing comes in by UDP either
          ┌─ plain ──────────────────────────────▶ forced ──────────────────────────────┐
          │    ▲                                     │ ▲  ESP is tried again, and is     │
          │    │ no association in UDP is left       ▼ │  not heard                      │
          └────┴─────────────────────────────────── accepted ◀──────────────────────────┘
               the peer's comes in UDP, in doubt

Both ends hear nothing where ESP is dropped both ways. Where it is dropped one way, the one that hears nothing
says so in its probes, and the other is in doubt by that. The pair's initiator goes first. An association is
made beside the old one each time, and takes its place as any younger one does. In doubt no rule of
`core/pairs/agreement` is given up but the one: addresses and identities are compared as ever.
"""

from __future__ import annotations

from dataclasses import replace

from swanmesh.core.actions import Action, Initiate, TerminateIke
from swanmesh.core.encapsulation import Mode
from swanmesh.core.observed import IkeSa
from swanmesh.core.pairs.data_path import ASKED
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import ESP_AGAIN, ESP_BLOCKED, ESP_STILL_BLOCKED, NONE, UDP_NO_BETTER, Reason
from swanmesh.core.state import State

TRY = 4.0
"""Seconds for which the peer was asked and nothing came in, after which UDP is tried."""
_TAKEOVER = 8.0
"""... and how much longer the end waits that is not the pair's initiator."""
_REFUSED = 3.5
"""Seconds after which it is tried again where the other end was not in doubt yet, and ended it."""
AFTER_THE_PEER = 3.0
"""Times as long as the end that forces UDP, after which the other one tries ESP."""
_HOPE = 6.0
"""Seconds by which a verdict waits for the other end, which may be in doubt so much later."""
_HOPE_AFTER = 8.0
"""... and so much longer after something was done about it."""
_DENIED = 4
"""Questions that say that nothing is heard, which weigh as much."""
_PATIENCE = 15.0
"""Seconds in which an association in UDP is made, and something heard through it."""
_ON_THE_WAY = 1.5
"""Seconds that an answer may have been on its way by what was there before; charon rounds ages, too."""
_TRIAL = 6.0
"""Seconds in which something is heard through one without: what is sent meanwhile is lost if nothing is."""


def in_udp(sa: IkeSa) -> bool:
    """Whether it is carried in UDP, or its ESP may be."""
    return sa.nat_local or sa.nat_remote or any(child.encap for child in sa.children)


def may_use_udp(state: State, pair: Pair) -> bool:
    """Whether the pair's ESP may come in UDP now, and either end look NATed. From all other addresses UDP
    4500 can be kept out: with `auto` at both ends, whoever begins in UDP hears nothing, so the other hears
    nothing either or was told, and is in doubt. What comes before that is sent again."""
    if state.settings.connection.encap:
        return True
    return state.settings.automatic_encapsulation and (pair.udp.mode is not Mode.PLAIN or pair.path.suspect)


def agree(state: State, pair: Pair, now: float) -> None:
    """What the pair's associations may be, and that one which came in UDP at a time of doubt is let in. At
    another time it makes this host ask whether ESP still passes."""
    agreement, udp = pair.associations.agreement, pair.udp
    if agreement is None or not state.settings.automatic_encapsulation:
        return
    may = may_use_udp(state, pair)
    if agreement.encapsulated != may:
        pair.associations.agreement = replace(agreement, encapsulated=may)
    if udp.mode is not Mode.PLAIN or not any(sa.established and in_udp(sa) for sa in pair.sas.values()):
        return
    if may:
        udp.later(now, AFTER_THE_PEER * state.settings.probe.again)
        _turn(state, pair, Mode.ACCEPTED, NONE, now)
    else:
        pair.path.urgent_until = now + _PATIENCE
        state.probing.doubted[pair.name] = None


def review(state: State, pair: Pair, now: float) -> None:
    """Whether the pair's ESP is carried otherwise from now on. The caller has seen to it that IKE lives."""
    if not state.settings.automatic_encapsulation:
        return
    agree(state, pair, now)
    match pair.udp.mode:
        case Mode.PLAIN:
            _review_plain(state, pair, now)
        case Mode.FORCED:
            _review_forced(state, pair, now)
        case Mode.ACCEPTED:
            _review_accepted(state, pair, now)
    if pair.udp.begin or pair.udp.give_up:
        state.pairs.mark(pair)


def _review_plain(state: State, pair: Pair, now: float) -> None:
    path, turn = pair.path, 0.0 if pair.initiator else _TAKEOVER
    blocked = path.silence >= TRY + turn or (path.denied >= _DENIED and path.denied_for >= turn)
    if blocked and now >= pair.udp.retry_at:
        _turn(state, pair, Mode.FORCED, ESP_BLOCKED, now)


def _review_forced(state: State, pair: Pair, now: float) -> None:
    path, udp, again = pair.path, pair.udp, state.settings.probe.again
    if udp.begin:
        return
    came = any(in_udp(sa) for sa in pair.associations.counting)
    if udp.asked is None:
        if now >= udp.plain_at:
            udp.trial = Mode.FORCED
            _turn(state, pair, Mode.ACCEPTED, ESP_AGAIN, now)
    elif came and path.heard > udp.asked and not path.suspect:
        udp.confirmed(now, again)
    elif now >= udp.changed + _PATIENCE:
        udp.later(now, again)
        plain = any(not in_udp(sa) for sa in pair.associations.counting)
        _turn(state, pair, Mode.ACCEPTED, NONE if plain else UDP_NO_BETTER, now)
    elif not came and now >= udp.asked + _REFUSED:
        udp.begin = ESP_BLOCKED


def _review_accepted(state: State, pair: Pair, now: float) -> None:
    udp = pair.udp
    if udp.begin:
        return
    plain = [sa for sa in pair.associations.counting if not in_udp(sa)]
    left = any(in_udp(sa) for sa in pair.sas.values())
    if udp.trial is not None:
        _review_trial(state, pair, udp.trial, plain, now)
    elif plain and not left:
        _turn(state, pair, Mode.PLAIN, NONE, now)
    elif plain:
        # The other end tries. It will do so again after twice as long as since the last time.
        udp.plain_at = max(udp.plain_at, now + AFTER_THE_PEER * (now - udp.changed))
    elif left and now >= udp.plain_at:
        udp.trial, udp.begin = Mode.ACCEPTED, ESP_AGAIN


def _review_trial(state: State, pair: Pair, before: Mode, plain: list[IkeSa], now: float) -> None:
    udp, again = pair.udp, state.settings.probe.again
    if udp.asked is None:
        return
    if any(in_udp(sa) and _born(pair, sa) >= udp.asked - 1.5 for sa in pair.associations.counting):
        # The peer brings UDP about as well: it will try when it is time there.
        before, udp.give_up = Mode.ACCEPTED, False
    elif _passes(pair, plain):
        udp.trial, udp.asked, udp.failures = None, None, 0
        udp.plain_at = now + again
        return
    elif now >= udp.asked + _PATIENCE or any(now >= _born(pair, sa) + _TRIAL for sa in plain):
        udp.give_up = bool(plain)
    else:
        return
    udp.trial = None
    udp.later(now, again if before is Mode.FORCED else AFTER_THE_PEER * again)
    _turn(state, pair, before, NONE, now)


def _passes(pair: Pair, plain: list[IkeSa]) -> bool:
    """Whether ESP by itself was heard here, and the peer has answered since all goes that way."""
    came = any(pair.path.came_by(child.spi_in) for sa in plain for child in sa.children)
    return came and pair.path.answered > max(_born(pair, sa) for sa in plain) + _ON_THE_WAY


def _born(pair: Pair, sa: IkeSa) -> float:
    return pair.associations.times[sa.unique_id].born


def _turn(state: State, pair: Pair, mode: Mode, begin: Reason, now: float) -> None:
    pair.udp.turn(mode, begin, now)
    pair.mtu.begin(now)
    state.reload[pair.peer] = begin or Reason("encapsulation", f"its encapsulation is {mode} now")
    agree(state, pair, now)


def insisted(pair: Pair, now: float) -> float:
    """Seconds for which the peer is told that nothing is heard although something was, by what it then ended
    because it was not in doubt yet."""
    refused = pair.udp.mode is Mode.FORCED and pair.udp.active
    stands = any(in_udp(sa) for sa in pair.associations.counting)
    return TRY + now - pair.udp.changed if refused and not stands else 0.0


def hoped_for(state: State, pair: Pair, now: float) -> bool:
    """Whether what is done about it may bring data through the pair in a moment."""
    udp = pair.udp
    if not state.settings.automatic_encapsulation:
        return False
    if udp.mode is Mode.PLAIN:
        return now >= udp.retry_at and pair.path.silence < ASKED + _HOPE
    counting = sorted(pair.associations.counting, key=lambda sa: _born(pair, sa))
    if any(in_udp(sa) for sa in counting) and not in_udp(counting[-1]):
        udp.tried_at = now
    return now < max(udp.changed, udp.tried_at) + _HOPE_AFTER


def encapsulating(pair: Pair) -> Action | None:
    """The association to be made as the mode has it, or the one to be ended that was tried in vain."""
    udp = pair.udp
    if pair.connection is None or not pair.associations.works:
        return None
    if udp.begin:
        return Initiate(connection=pair.name, child=pair.connection.child, peer=pair.peer, reason=udp.begin)
    if udp.give_up:
        ids = tuple(sa.unique_id for sa in pair.associations.counting if not in_udp(sa))
        kept = any(in_udp(sa) for sa in pair.associations.counting)
        if ids and kept:
            return TerminateIke(
                unique_ids=ids, connection=pair.name, peer=pair.peer, reason=ESP_STILL_BLOCKED
            )
        udp.give_up = False
    return None
