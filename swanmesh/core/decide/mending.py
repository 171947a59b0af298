"""What the kernel should hold for a pair, whether a look at it shows that, and what to do about policies and
states that others took.

`kernel/link.py` tells how it is mended, and why so: policies of an association are put back at once, since
packets cross in clear without them; those of a trap or shunt are charon's to install again; for states charon
rekeys the CHILD_SA.
"""

from __future__ import annotations

from collections.abc import Iterator

from swanmesh.core.actions import InstallPolicies, RekeyChild, RestorePolicies
from swanmesh.core.connections import Kind
from swanmesh.core.model import Address
from swanmesh.core.observed import ChildSa
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import NONE, POLICIES_FLUSHED, POLICIES_MISSING, POLICIES_OF_ANOTHER, Reason
from swanmesh.core.xfrm import Direction, KernelHoldings, XfrmPolicy

_DISCOVERY = frozenset({135, 136})
"""ICMPv6 types that the neighbour discovery shunt lets pass."""


class KernelView:
    """A look at the kernel, arranged for asking."""

    def __init__(self, held: KernelHoldings) -> None:
        self._spis = {state.spi for state in held.states}
        self._between_hosts: dict[tuple[Direction, Address, Address], XfrmPolicy] = {}
        self._discovery: set[tuple[Direction, int]] = set()
        for policy in held.policies:
            if policy.owner:
                continue
            if policy.single_hosts:
                self._between_hosts[policy.direction, policy.source, policy.destination] = policy
            elif policy.protocol == 58 and policy.source_bits == 0 and policy.allow and not policy.reqid:
                self._discovery.add((policy.direction, policy.source_port))

    def lacks_states(self, child: ChildSa) -> bool:
        return not {child.spi_in, child.spi_out} <= self._spis

    def lacks_policies(self, pair: Pair) -> Reason:
        """Why a policy that charon should have installed is missing, lets pass what it should not, or leads
        to another association; empty if none."""
        if pair.connection is None or not needs_policies(pair):
            return NONE
        if pair.addresses is None:
            ways = (Direction.IN, Direction.OUT)
            found_all = self._discovery.issuperset((way, kind) for way in ways for kind in _DISCOVERY)
            return NONE if found_all else POLICIES_MISSING
        local, remote = pair.addresses.local, pair.addresses.remote
        found = (
            self._between_hosts.get((Direction.OUT, local, remote)),
            self._between_hosts.get((Direction.IN, remote, local)),
        )
        if pair.connection.shunt:
            passes = pair.connection.kind is Kind.PASS
            right = all(policy is not None and policy.allow == passes for policy in found)
            return NONE if right else POLICIES_MISSING
        if not all(policy is not None and policy.allow and policy.reqid for policy in found):
            return POLICIES_MISSING
        own = {child.reqid for child in settled(pair) if child.reqid}
        if own and any(policy is not None and policy.reqid not in own for policy in found):
            return POLICIES_OF_ANOTHER
        return NONE


def needs_policies(pair: Pair) -> bool:
    """Whether charon should have policies of the pair's in the kernel."""
    if pair.connection is None or pair.loaded != pair.connection.child:
        return False
    return pair.associations.works or pair.connection.trap


def settled(pair: Pair) -> Iterator[ChildSa]:
    """CHILD_SAs that no rekeying has to do with: one that replaces another may not send yet."""
    for sa in pair.associations.counting:
        if all(child.state == "INSTALLED" for child in sa.children):
            yield from (child for child in sa.children if child.works and child.spi_in and child.spi_out)


def mend(pair: Pair) -> InstallPolicies | RestorePolicies | RekeyChild | None:
    """The mending of a proven absence. Policies come first: without them packets cross in clear."""
    if pair.connection is None:
        return None
    if pair.missing_in_kernel.policies and pair.loaded == pair.connection.child:
        child = newest(pair)
        if child is None or pair.connection.shunt or pair.addresses is None:
            return InstallPolicies(
                connection=pair.name,
                child=pair.connection.child,
                peer=pair.peer,
                reason=pair.missing_in_kernel.policies,
            )
        return RestorePolicies(
            connection=pair.name,
            peer=pair.peer,
            addresses=pair.addresses,
            reqid=child.reqid,
            replace=pair.missing_in_kernel.policies != POLICIES_FLUSHED,
            reason=pair.missing_in_kernel.policies,
        )
    for unique_id, reason in pair.missing_in_kernel.states.items():
        return RekeyChild(unique_id=unique_id, connection=pair.name, peer=pair.peer, reason=reason)
    return None


def newest(pair: Pair) -> ChildSa | None:
    """The CHILD_SA that packets go out on."""
    working = [child for sa in pair.associations.counting for child in sa.children if child.works]
    return max(working, key=lambda child: child.unique_id, default=None)
