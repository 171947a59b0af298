"""What to do about policies and states that others took from the kernel.

`kernel/link.py` tells how it is mended, and why so: policies of an association are put back at once, since
packets cross in clear without them; those of a trap or shunt are charon's to install again; for states charon
rekeys the CHILD_SA.
"""

from __future__ import annotations

from swanmesh.core.actions import InstallPolicies, RekeyChild, RestorePolicies
from swanmesh.core.observed import ChildSa
from swanmesh.core.pair import Pair
from swanmesh.core.reasons import POLICIES_FLUSHED


def mend(pair: Pair) -> InstallPolicies | RestorePolicies | RekeyChild | None:
    """The mending of a proven absence. Policies come first: without them packets cross in clear."""
    if pair.connection is None:
        return None
    if pair.meddled.policies and pair.loaded == pair.connection.child:
        child = newest(pair)
        if child is None or pair.connection.shunt or pair.addresses is None:
            return InstallPolicies(
                connection=pair.name,
                child=pair.connection.child,
                peer=pair.peer,
                reason=pair.meddled.policies,
            )
        return RestorePolicies(
            connection=pair.name,
            peer=pair.peer,
            addresses=pair.addresses,
            reqid=child.reqid,
            replace=pair.meddled.policies != POLICIES_FLUSHED,
            reason=pair.meddled.policies,
        )
    for unique_id, reason in pair.meddled.states.items():
        return RekeyChild(unique_id=unique_id, connection=pair.name, peer=pair.peer, reason=reason)
    return None


def newest(pair: Pair) -> ChildSa | None:
    """The CHILD_SA that packets go out on."""
    working = [
        child
        for sa in pair.sas.values()
        if pair.associations.counts(sa)
        for child in sa.children
        if child.works
    ]
    return max(working, key=lambda child: child.unique_id, default=None)
