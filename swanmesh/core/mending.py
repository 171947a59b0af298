"""What the kernel holds compared with what the pairs need: others may take away what charon believes there.

Absence counts as proven in two cases only, so that no rekey, installation or deletion under way is taken for
a fault: the kernel told that somebody flushed everything (charon never does), or a look at the kernel lacked
it, then charon was looked at and still had it, and then a second look at the kernel lacked it again.

`host/kernel.py` tells how it is mended, and why so: policies of an association are put back at once, since
packets cross in clear without them; those of a trap or shunt are charon's to install again; for states charon
rekeys the CHILD_SA.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .actions import Action, InstallPolicies, ObserveKernel, RekeyChild, RestorePolicies
from .connections import is_shunt
from .kernel import Kernel
from .model import Address
from .observed import ChildSa
from .pair import Pair
from .state import State
from .xfrm import (
    Direction,
    EventsLost,
    KernelEvent,
    KernelHoldings,
    KernelUnwatched,
    KernelWatched,
    PoliciesFlushed,
    PolicyDeleted,
    StateDeleted,
    StatesFlushed,
    XfrmPolicy,
)

AGAIN = 1.5
"""Seconds between a look that lacks something and the one that proves it."""
_GRACE = 1.0
"""Seconds that charon's word on a deletion of its own may take to get here after the kernel's."""
_PATIENCE = 10.0
"""Seconds that a rekeying which mends may take before it counts as failed and is asked for again: charon's
retransmissions to a peer that is gone end about then, and its IKE_SA with them."""
_SHARE = 100
"""A look comes at most once in so many times its own duration."""

POLICIES_FLUSHED = "somebody flushed the kernel's IPsec policies"
STATES_FLUSHED = "somebody flushed the kernel's IPsec states"
POLICIES_MISSING = "the kernel lacks its policies"
STATES_MISSING = "the kernel lacks its states"

_DISCOVERY = frozenset({135, 136})
"""ICMPv6 types that the neighbour discovery shunt lets pass."""


def take_kernel_event(state: State, event: KernelEvent, now: float) -> None:
    """What it tells of changes while charon does not answer is left to the look when charon is back."""
    kernel = state.kernel
    match event:
        case KernelWatched():
            kernel.watched, kernel.reason = True, ""
            kernel.want(now, "the kernel can be looked at")
        case KernelUnwatched(reason):
            state.kernel = Kernel(reason=reason)
        case _ if not state.charon.reachable:
            pass
        case PoliciesFlushed():
            for pair in state.pairs:
                _expose(state, pair, POLICIES_FLUSHED)
            kernel.want(now + AGAIN, POLICIES_FLUSHED)
        case StatesFlushed():
            kernel.flushed |= {child.unique_id for _, child in _children(state.pairs)}
            kernel.earliest = now
            kernel.want(now, STATES_FLUSHED)
        case StateDeleted(spi):
            kernel.deleted.add(spi)
            if kernel.deleted_due is None:
                kernel.deleted_due = now + _GRACE
        case PolicyDeleted():
            kernel.want(now + _GRACE, "a policy was deleted from the kernel")
        case EventsLost():
            kernel.want(now, "the kernel told more than could be read")


def kernel_step(state: State, now: float) -> ObserveKernel | None:
    """The look that is due. The caller has made sure that charon answers: without charon nothing can be said
    to be missing."""
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
    kernel.want(now + max(state.settings.initiation.resync, took * _SHARE), "the slow safety net")
    _forget_rekeyings(state, now)
    if held is None:
        kernel.want(now + 5.0, "the last look at the kernel failed")
        return
    if not state.charon.reachable:
        return
    doubts = list(_compare(state, held, began))
    kernel.flushed = frozenset()
    if kernel.rekeying:
        asked = min(at for at, _ in kernel.rekeying.values())
        kernel.want(asked + _PATIENCE, "a rekeying should have brought states back")
    kernel.doubts = {key: kernel.doubts.get(key, now) for key in doubts}
    if doubts:
        # charon's word decides, so it is asked; then the kernel is asked again.
        state.looks.want_all(now, "the kernel lacks what charon should have installed")
        kernel.want(now + AGAIN, "the kernel lacked something in the last look")


def mend(pair: Pair) -> Action | None:
    """What to do about a proven absence. Policies come first: without them packets cross in clear."""
    if pair.connection is None:
        return None
    if pair.exposed and pair.loaded == pair.connection.child:
        child = _newest(pair)
        if child is None or is_shunt(pair.connection.child) or pair.addresses is None:
            return InstallPolicies(
                connection=pair.name, child=pair.connection.child, peer=pair.peer, reason=pair.exposed
            )
        return RestorePolicies(
            connection=pair.name,
            peer=pair.peer,
            addresses=pair.addresses,
            reqid=child.reqid,
            replace=pair.exposed != POLICIES_FLUSHED,
            reason=pair.exposed,
        )
    for unique_id, reason in pair.stateless.items():
        return RekeyChild(unique_id=unique_id, connection=pair.name, peer=pair.peer, reason=reason)
    return None


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
        if pair.stateless.pop(action.unique_id, None) is None:
            return  # the operator's
        if error is None:
            kernel.rekeying[action.unique_id] = now, pair.name
        else:
            state.admission.release(pair.name)
        kernel.want(now + _PATIENCE / 2, "a CHILD_SA is being rekeyed for want of states")
    else:
        pair.exposed = ""
        kernel.want(now + _GRACE, "policies were put back")
    if error is not None:
        state.looks.want_all(now, f"mending failed: {error}")
    pair.busy = False
    state.pairs.mark(pair)


def forget_kernel_doubts(state: State) -> None:
    """charon is gone or came back: what it is held to be wrong about begins anew."""
    kernel = state.kernel
    kernel.doubts.clear()
    kernel.rekeying.clear()
    for pair in state.pairs:
        pair.exposed = ""
        pair.stateless.clear()


# Comparing.


def _compare(state: State, held: KernelHoldings, began: float) -> Iterator[str | int]:
    """Notes what is proven to be missing with its pair, and yields what is in doubt."""
    kernel = state.kernel
    spis = {found.spi for found in held.states}
    between_hosts = {
        (policy.direction, policy.source, policy.destination): policy
        for policy in held.policies
        if policy.single_hosts
    }
    discovery = {
        (policy.direction, policy.source_port)
        for policy in held.policies
        if policy.protocol == 58 and policy.source_bits == 0 and policy.allow and not policy.reqid
    }
    for pair in state.pairs:
        if pair.addresses is None:
            missing = _needs_policies(pair) and not discovery.issuperset(
                (direction, kind) for direction in (Direction.IN, Direction.OUT) for kind in _DISCOVERY
            )
        else:
            missing = _lacks_policies(pair, between_hosts)
        if missing:
            if _proven(kernel, pair, pair.name, began):
                _expose(state, pair, POLICIES_MISSING)
            else:
                yield pair.name
        for child in _settled(pair):
            if {child.spi_in, child.spi_out} <= spis or child.unique_id in kernel.rekeying:
                continue
            if child.unique_id in kernel.flushed:
                _note_stateless(state, pair, child, STATES_FLUSHED)
            elif _proven(kernel, pair, child.unique_id, began):
                _note_stateless(state, pair, child, STATES_MISSING)
            else:
                yield child.unique_id


def _proven(kernel: Kernel, pair: Pair, key: str | int, began: float) -> bool:
    """Lacking before, then shown by charon, then lacking again."""
    first = kernel.doubts.get(key)
    return first is not None and first <= pair.seen <= began


def _needs_policies(pair: Pair) -> bool:
    """Whether charon should have policies of the pair's in the kernel."""
    if pair.connection is None or pair.loaded != pair.connection.child:
        return False
    return pair.works or _has_trap(pair)


def _has_trap(pair: Pair) -> bool:
    """Whether a trap or shunt of it stands as long as it is loaded."""
    if pair.connection is None:
        return False
    children = pair.connection.body.get("children")
    child = children.get(pair.connection.child) if isinstance(children, dict) else None
    return isinstance(child, dict) and child.get("start_action") == "trap"


def _lacks_policies(pair: Pair, held: dict[tuple[Direction, Address, Address], XfrmPolicy]) -> bool:
    if not _needs_policies(pair) or pair.addresses is None or pair.connection is None:
        return False
    local, remote = pair.addresses.local, pair.addresses.remote
    found = (held.get((Direction.OUT, local, remote)), held.get((Direction.IN, remote, local)))
    if is_shunt(pair.connection.child):
        passes = pair.connection.child.startswith("pass-")
        return not all(policy is not None and policy.allow == passes for policy in found)
    return not all(policy is not None and policy.allow and policy.reqid for policy in found)


def _children(pairs: Iterable[Pair]) -> Iterator[tuple[Pair, ChildSa]]:
    for pair in pairs:
        for child in _settled(pair):
            yield pair, child


def _settled(pair: Pair) -> Iterator[ChildSa]:
    """CHILD_SAs that no rekeying has to do with: one that replaces another may not send yet."""
    for sa in pair.sas.values():
        if sa.established and all(child.state == "INSTALLED" for child in sa.children):
            yield from (child for child in sa.children if child.works and child.spi_in and child.spi_out)


def _newest(pair: Pair) -> ChildSa | None:
    working = [child for sa in pair.sas.values() if sa.works for child in sa.children if child.works]
    return max(working, key=lambda child: child.unique_id, default=None)


def _expose(state: State, pair: Pair, reason: str) -> None:
    if _needs_policies(pair):
        pair.exposed = reason
        state.pairs.mark(pair)


def _note_stateless(state: State, pair: Pair, child: ChildSa, reason: str) -> None:
    pair.stateless.setdefault(child.unique_id, reason)
    state.pairs.mark(pair)


def _judge_deleted(state: State, now: float) -> None:
    """Deletions of charon's own were told by charon meanwhile. What is left is worth a look."""
    kernel = state.kernel
    spis, kernel.deleted, kernel.deleted_due = kernel.deleted, set(), None
    if any(child.spi_in in spis or child.spi_out in spis for _, child in _children(state.pairs)):
        kernel.want(now, "a state of an association was deleted from the kernel")


def _forget_rekeyings(state: State, now: float) -> None:
    for unique_id, (asked, name) in list(state.kernel.rekeying.items()):
        if now - asked >= _PATIENCE:
            del state.kernel.rekeying[unique_id]
            pair = state.pairs.get(name)
            if pair is None or pair.in_flight is None:
                state.admission.release(name)
