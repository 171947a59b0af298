"""The decision on one address pair: desired x loaded x active x now → the next action, with its reason.

A pair gets one action at a time, and is decided on again with its outcome. So a plan can stop after any
action and be made anew from what charon then holds: there is no state of a half-done plan.

The order of the rules is the order of `_RULES`; the first that has an answer decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from swanmesh.core.actions import (
    Action,
    Initiate,
    LoadConnection,
    TerminateChild,
    TerminateIke,
    UnloadConnection,
)
from swanmesh.core.connections import is_shunt
from swanmesh.core.inputs.kernel import mend
from swanmesh.core.model import InitiationSettings
from swanmesh.core.observed import ChildSa, IkeSa
from swanmesh.core.pair import Pair

TIE = 5.0
"""Seconds: IKE_SAs established this close together count as equally old. Both ends know the moment to within
a round trip and charon's rounding to seconds."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a pair now, when to decide again, and why it is not up (empty if it is)."""

    action: Action | None = None
    due: float | None = None
    reason: str = ""
    fresh: bool = False
    """Whether the action stands only on what a look of just now shows: events tell of no IKE_SA that somebody
    else has begun to end, nor of one that charon has lost without a word."""


Rule = Callable[[Pair, float, InitiationSettings], Decision | None]


def decide(pair: Pair, now: float, settings: InitiationSettings) -> Decision:
    """The first rule that has an answer. `pair.busy` is the caller's to heed."""
    for rule in _RULES:
        decision = rule(pair, now, settings)
        if decision is not None:
            return decision
    return Decision()


def _meddled(pair: Pair, now: float, settings: InitiationSettings) -> Decision | None:
    """What somebody took from the kernel is put back before all else: meanwhile packets cross in clear, or
    not at all."""
    action = mend(pair)
    return Decision(action, reason=action.reason) if action is not None else None


def _retrying(pair: Pair, now: float, settings: InitiationSettings) -> Decision | None:
    """charon refused the last load, unload or termination: it gets time before the next."""
    if pair.error and now < pair.retry_at:
        return Decision(due=pair.retry_at, reason=pair.error)
    return None


def _unwanted(pair: Pair, now: float, settings: InitiationSettings) -> Decision | None:
    """A peer that is gone is unloaded first, so that no trap brings back what is ended next."""
    if pair.connection is not None:
        return None
    if pair.stays:
        return Decision(reason=pair.stays)
    if pair.loaded is not None:
        return Decision(UnloadConnection(name=pair.name, peer=pair.peer, reason=pair.reason))
    return _end_all(pair, pair.reason)


def _unloaded(pair: Pair, now: float, settings: InitiationSettings) -> Decision | None:
    if pair.connection is None or pair.loaded == pair.connection.child:
        return None
    return Decision(LoadConnection(connection=pair.connection, reason=pair.reason), reason=pair.reason)


def _shunt(pair: Pair, now: float, settings: InitiationSettings) -> Decision | None:
    """No association belongs beside a shunt: what `down` leaves, and neighbour discovery."""
    if pair.connection is None or not is_shunt(pair.connection.child):
        return None
    return _end_all(pair, "held down by the operator" if pair.disabled else "")


def _extra(pair: Pair, now: float, settings: InitiationSettings) -> Decision | None:
    """A proven duplicate is ended by the pair's initiator, or much later by the other end if it stands."""
    if pair.extra_since is None:
        return None
    ends = pair.extra_since + settings.duplicate_settle + (0 if pair.ours else settings.takeover)
    if now < ends:
        return Decision(due=ends) if pair.works else None
    action = next(iter(duplicates(pair)), None)
    return Decision(action, fresh=True) if action is not None else None


def _working(pair: Pair, now: float, settings: InitiationSettings) -> Decision | None:
    return Decision() if pair.works else None


def _misshapen(pair: Pair, now: float, settings: InitiationSettings) -> Decision | None:
    mode = pair.misshapen
    if not mode:
        return None
    return Decision(reason=f"the CHILD_SA came up in {mode.lower()} mode, not in transport mode")


def _under_way(pair: Pair, now: float, settings: InitiationSettings) -> Decision | None:
    if not pair.under_way:
        return None
    due = pair.look_at if pair.in_flight is not None else pair.next_attempt
    return Decision(due=max(due, now + 1.0), reason=pair.cause or "connecting")


def _down(pair: Pair, now: float, settings: InitiationSettings) -> Decision | None:
    if pair.connection is None:
        return None
    childless = any(sa.established for sa in pair.sas.values())
    cause = "its IKE_SA has no CHILD_SA" if childless else pair.cause
    if now < pair.next_attempt:
        waiting = cause or ("waiting to initiate" if pair.ours else "waiting for the peer to initiate")
        return Decision(due=pair.next_attempt, reason=waiting)
    turn = "ours to initiate" if pair.ours else "the peer did not initiate"
    reason = f"{turn}: {cause}" if cause else turn
    action = Initiate(connection=pair.name, child=pair.connection.child, peer=pair.peer, reason=reason)
    return Decision(action, reason=cause or "connecting")


_RULES: tuple[Rule, ...] = (
    _meddled,
    _retrying,
    _unwanted,
    _unloaded,
    _shunt,
    _extra,
    _working,
    _misshapen,
    _under_way,
    _down,
)


def _end_all(pair: Pair, reason: str) -> Decision:
    """End the pair's IKE_SAs, one at a time; those that are already being deleted end by themselves."""
    for sa in pair.sas.values():
        if sa.state not in ("DELETING", "DESTROYING", "REKEYED"):
            end = TerminateIke(unique_id=sa.unique_id, connection=pair.name, peer=pair.peer, reason=reason)
            return Decision(end, reason=reason)
    return Decision(reason=reason)


def duplicates(pair: Pair) -> Iterable[TerminateIke | TerminateChild]:
    """What stands beside the IKE_SA and CHILD_SA that should stay. Only established IKE_SAs count: the old
    one of a rekey is REKEYED, one that ends is DELETING."""
    established = [sa for sa in pair.sas.values() if sa.established]
    if not established:
        return
    keep = survivor(established, pair)
    for sa in established:
        if sa is not keep:
            reason = f"duplicate of IKE_SA #{keep.unique_id}"
            yield TerminateIke(unique_id=sa.unique_id, connection=pair.name, peer=pair.peer, reason=reason)
    installed = [child for child in keep.children if child.state == "INSTALLED"]
    if len(installed) > 1:
        kept = max(installed, key=_child_rank)
        for child in installed:
            if child is not kept:
                reason = f"duplicate of CHILD_SA #{kept.unique_id}"
                yield TerminateChild(
                    unique_id=child.unique_id, connection=pair.name, peer=pair.peer, reason=reason
                )


def survivor(established: list[IkeSa], pair: Pair) -> IkeSa:
    """The IKE_SA that stays, the same at both ends: of those that work the youngest, since the kernel sends
    on the newest SA, and since an older one may be a zombie whose other end is gone. Of those equally young,
    the one that the pair's initiator began; then the SPIs decide."""
    candidates = [sa for sa in established if sa.works] or established
    newest = max(pair.born.get(sa.unique_id, 0.0) for sa in candidates)
    young = [sa for sa in candidates if pair.born.get(sa.unique_id, 0.0) >= newest - TIE]
    return max(young, key=lambda sa: (sa.initiator == pair.ours, sa.spi_initiator, sa.spi_responder))


def _child_rank(child: ChildSa) -> tuple[float, list[str]]:
    return (-(child.age or 0.0) // TIE, sorted((child.spi_in, child.spi_out)))
