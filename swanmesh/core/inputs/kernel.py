"""What the kernel tells and shows, compared with what the pairs need: others may take away what charon
believes there.

Absence counts as proven in two cases only, so that no rekey, installation or deletion under way is taken for
a fault: the kernel told that somebody flushed everything (charon never does), or a look at the kernel lacked
it, then charon was looked at and still had it, and then a second look at the kernel lacked it again. Policies
that belong to another association need no proof: putting back the right ones does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swanmesh.core import reasons
from swanmesh.core.actions import InstallPolicies, ObserveKernel, RekeyChild, RestorePolicies
from swanmesh.core.decide.mending import KernelView, needs_policies, settled
from swanmesh.core.inputs.guard import tidy, watch_guard
from swanmesh.core.inputs.members import take_left_over, take_packet
from swanmesh.core.observed import ChildSa
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import POLICIES_FLUSHED, STATES_FLUSHED, STATES_MISSING, Reason
from swanmesh.core.state import KernelState, Mending, State
from swanmesh.core.xfrm import (
    EventsLost,
    KernelEvent,
    KernelHoldings,
    KernelUnwatched,
    KernelWatched,
    PacketCalls,
    PoliciesFlushed,
    PolicyDeleted,
    StateDeleted,
    StatesFlushed,
)

AGAIN = 1.5
"""Seconds between a look that lacks something and the one that proves it."""
_GRACE = 1.0
"""Seconds that charon's word on a deletion of its own may take to get here after the kernel's."""
_PATIENCE = 10.0
"""Seconds that a rekeying which mends may take before it counts as failed and is asked for again: charon's
retransmissions to a peer that is gone end about then, and its IKE_SA with them. Twice as long each time."""
_AT_ONCE = 2.0
"""The same for policies, which are back as soon as it is done."""
_CEILING = 300.0
_SHARE = 100
"""A look comes at most once in so many times its own duration."""


def take_kernel_event(state: State, event: KernelEvent, now: float) -> None:
    """What it tells of changes while charon does not answer is left to the look when charon is back."""
    kernel = state.kernel
    match event:
        case KernelWatched():
            kernel.watched, kernel.reason = True, ""
            watch_guard(state, watched=True)
            kernel.want(now, Reason("kernel-watched", "the kernel can be looked at"))
        case KernelUnwatched(reason):
            state.kernel = KernelState(reason=reason)
            watch_guard(state, watched=False)
        case PoliciesFlushed() | PolicyDeleted():
            _guard_taken(state, event)
            if state.charon.reachable:
                _policies_gone(state, event, now)
        case PacketCalls(local, remote):
            take_packet(state, local, remote, now)
        case _ if not state.charon.reachable:
            pass
        case StatesFlushed():
            kernel.flushed |= {child.unique_id for _, child in _children(state.pairs)}
            kernel.earliest = now
            kernel.want(now, STATES_FLUSHED)
        case StateDeleted(spi):
            kernel.deleted.add(spi)
            if kernel.deleted_due is None:
                kernel.deleted_due = now + _GRACE
        case EventsLost():
            kernel.want(now, Reason("events-lost", "the kernel told more than could be read"))


def _policies_gone(state: State, event: PoliciesFlushed | PolicyDeleted, now: float) -> None:
    if isinstance(event, PoliciesFlushed):
        for pair in state.pairs:
            _expose(state, pair, POLICIES_FLUSHED)
        state.kernel.want(now + AGAIN, POLICIES_FLUSHED)
    else:
        lacks = Reason("policy-deleted", "a policy was deleted from the kernel")
        state.kernel.want(now + _GRACE, lacks)


def _guard_taken(state: State, event: PoliciesFlushed | PolicyDeleted) -> None:
    """No look is needed to see what of the guard is missing, and none of charon's words."""
    if isinstance(event, PoliciesFlushed):
        state.guard.flushed()
    elif event.policy is not None:
        state.guard.deleted(event.policy)


def kernel_step(state: State, now: float) -> ObserveKernel | None:
    """The look that is due. Without charon nothing but of the guard can be said to be missing."""
    kernel = state.kernel
    if not kernel.watched:
        return None
    if kernel.deleted_due is not None and now >= kernel.deleted_due:
        _judge_deleted(state, now)
    if kernel.look_at is None or kernel.looking is not None or now < max(kernel.look_at, kernel.earliest):
        return None
    kernel.looking, kernel.look_at = now, None
    return ObserveKernel(reason=kernel.look_reason)


def take_kernel(state: State, held: KernelHoldings | None, now: float) -> None:
    """The outcome of ObserveKernel; None if it failed."""
    kernel = state.kernel
    began = kernel.looking if kernel.looking is not None else now
    took, kernel.looking = now - began, None
    kernel.earliest = now + max(0.5, took * 10)
    kernel.want(now + max(state.settings.initiation.resync, took * _SHARE), reasons.SAFETY_NET)
    _give_places_back(state, now)
    if held is None:
        kernel.want(now + 5.0, reasons.LOOK_FAILED)
        return
    kernel.segmenting = held.segmenting
    state.guard.observed(
        held.policies, tidy=tidy(state), known=lambda address: state.registry.at(address) is not None
    )
    if not state.charon.reachable:
        return
    take_left_over(state, held.policies, now)
    doubts = list(_compare(state, held, began))
    kernel.flushed = frozenset()
    if kernel.mendings:
        soonest = min(mending.until for mending in kernel.mendings.values())
        kernel.want(max(soonest, now + 1.0), Reason("mending-check", "whether mending helped"))
    kernel.doubts = {key: kernel.doubts.get(key, now) for key in doubts}
    if doubts:
        # charon's word decides, so it is asked; then the kernel is asked again.
        lacks = Reason("kernel-lacks", "the kernel lacks what charon should have installed")
        state.observation.want_all(now, lacks)
        kernel.want(now + AGAIN, lacks)


def mended(
    state: State,
    pair: Pair,
    action: RestorePolicies | InstallPolicies | RekeyChild,
    error: str | None,
    now: float,
) -> None:
    """The outcome of what `mend` gave. Whether it helped, the next look tells."""
    kernel = state.kernel
    if isinstance(action, RekeyChild):
        if pair.missing_in_kernel.states.pop(action.unique_id, None) is None:
            return  # the operator's
        _note_mending(kernel, pair, action.unique_id, _PATIENCE, now)
        if error is not None:
            _give_place_back(state, kernel.mendings[action.unique_id])
        kernel.want(now + _PATIENCE / 2, reasons.STATES_MISSING)
    else:
        pair.missing_in_kernel.policies = reasons.NONE
        _note_mending(kernel, pair, pair.name, _AT_ONCE, now)
        kernel.want(now + _GRACE, Reason("mending-check", "policies were put back"))
    if error is not None:
        state.observation.want_all(now, Reason("mending-failed", f"mending failed: {error}"))
    pair.busy = False
    state.pairs.mark(pair)


def forget_kernel_doubts(state: State) -> None:
    """charon is gone or came back: what it is held to be wrong about begins anew."""
    kernel = state.kernel
    kernel.doubts.clear()
    kernel.mendings.clear()
    for pair in state.pairs:
        pair.missing_in_kernel.clear()


# Comparing.


def _compare(state: State, held: KernelHoldings, began: float) -> Iterator[str | int]:
    """Notes what is proven to be missing with its pair, and yields what is in doubt."""
    kernel, shown = state.kernel, KernelView(held)
    for pair in state.pairs:
        lacking = shown.lacks_policies(pair)
        if not lacking:
            kernel.mendings.pop(pair.name, None)
        elif not _hoped_for(kernel, pair.name, began):
            if lacking == reasons.POLICIES_OF_ANOTHER or _proven(kernel, pair, pair.name, began):
                _expose(state, pair, lacking)
            else:
                yield pair.name
        for child in settled(pair):
            if not shown.lacks_states(child) or _hoped_for(kernel, child.unique_id, began):
                continue
            if child.unique_id in kernel.flushed:
                _note_stateless(state, pair, child, STATES_FLUSHED)
            elif _proven(kernel, pair, child.unique_id, began):
                _note_stateless(state, pair, child, STATES_MISSING)
            else:
                yield child.unique_id


def _hoped_for(kernel: KernelState, key: str | int, began: float) -> bool:
    """Whether it may still come back by what was done about it."""
    mending = kernel.mendings.get(key)
    return mending is not None and began < mending.until


def _proven(kernel: KernelState, pair: Pair, key: str | int, began: float) -> bool:
    """Lacking before, then shown by charon, then lacking again."""
    first = kernel.doubts.get(key)
    return first is not None and first <= pair.seen <= began


def _children(pairs: Iterable[Pair]) -> Iterator[tuple[Pair, ChildSa]]:
    for pair in pairs:
        for child in settled(pair):
            yield pair, child


def _expose(state: State, pair: Pair, reason: Reason) -> None:
    if needs_policies(pair):
        pair.missing_in_kernel.policies = reason
        state.pairs.mark(pair)


def _note_stateless(state: State, pair: Pair, child: ChildSa, reason: Reason) -> None:
    pair.missing_in_kernel.states.setdefault(child.unique_id, reason)
    state.pairs.mark(pair)


def _judge_deleted(state: State, now: float) -> None:
    """Deletions of charon's own were told by charon meanwhile. What is left is worth a look."""
    kernel = state.kernel
    spis, kernel.deleted, kernel.deleted_due = kernel.deleted, set(), None
    if any(child.spi_in in spis or child.spi_out in spis for _, child in _children(state.pairs)):
        kernel.want(now, Reason("state-deleted", "a state of an association was deleted from the kernel"))


def _note_mending(kernel: KernelState, pair: Pair, key: str | int, patience: float, now: float) -> None:
    before = kernel.mendings.get(key)
    times = before.times + 1 if before is not None else 1
    until = now + min(_CEILING, patience * 2 ** min(times - 1, 10))
    kernel.mendings[key] = Mending(
        pair=pair.name, at=now, until=until, times=times, holds_place=isinstance(key, int)
    )


def _give_places_back(state: State, now: float) -> None:
    """Of rekeyings that have come to nothing by now; and forget those whose CHILD_SA has been replaced."""
    for key, mending in list(state.kernel.mendings.items()):
        pair = state.pairs.get(mending.pair)
        if now - mending.at >= _PATIENCE:
            _give_place_back(state, mending)
        known = pair is not None and (
            isinstance(key, str) or any(c.unique_id == key for sa in pair.sas.values() for c in sa.children)
        )
        if not known:
            _give_place_back(state, mending)
            del state.kernel.mendings[key]


def _give_place_back(state: State, mending: Mending) -> None:
    pair = state.pairs.get(mending.pair)
    if mending.holds_place and (pair is None or pair.attempt.began is None):
        state.admission.release(mending.pair)
    mending.holds_place = False
