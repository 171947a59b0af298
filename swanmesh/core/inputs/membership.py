"""Whom a block lets in."""

from __future__ import annotations

from swanmesh.core.model import shown
from swanmesh.core.observed import IkeSa
from swanmesh.core.peers.description import check_name
from swanmesh.core.peers.members import ADDRESSES
from swanmesh.core.reasons import NONE, Reason, not_as_agreed
from swanmesh.core.state import State


def not_let_in(sa: IkeSa) -> Reason:
    """Why an association ends that came in by a block's gate and belongs to no host of the block."""
    return not_as_agreed(f"the block does not let {sa.remote_host} in: it is excepted, or a file has it")


def refusal(state: State, sa: IkeSa, name: str) -> Reason:
    """Why the host of a block at the address `name` is not let in with the identity that it proved."""
    identity = sa.remote_id.lower()
    if not identity:
        return NONE
    if fault := _fault(state, identity, name):
        return not_as_agreed(f"the peer proved to be {shown(identity)}, {fault}")
    return NONE


def _fault(state: State, identity: str, name: str) -> str:
    try:
        check_name(identity)
    except ValueError as error:
        return f"which {error}"
    if identity == state.settings.host.name:
        return "which is this host's own name"
    if state.registry.named(identity) is not None:
        return f"whose file does not have the address {name}: add it there if it is that host's"
    if state.members.elsewhere(identity, name) >= ADDRESSES:
        return (
            f"which stands at {ADDRESSES} other addresses of blocks: give each host a certificate of its own"
        )
    return ""
