"""What an association must be to count: exactly what its pair asked for.

A peer proves its name and no more. Whoever holds a valid certificate may be an intruder, and charon lets a
peer go further than its name allows: it follows a peer that looks NATed to any address (sa/ike_sa.c,
update_hosts, even with mobike=no), narrows selectors to what is offered, and falls back to tunnel mode
(ikev2/tasks/child_create.c). So every IKE_SA and CHILD_SA is compared with its pair at each event and look.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from swanmesh.core.connections import ANYBODY
from swanmesh.core.model import Address, Credentials, Host, Problem, shown
from swanmesh.core.observed import HELD_BY_KERNEL, ChildSa, IkeSa, SeenCertificate
from swanmesh.core.reasons import NONE, UDP_NOT_NEEDED, Reason, not_as_agreed


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What one pair's associations must be."""

    local: str
    """The addresses as charon prints them: each look compares thousands of associations with theirs."""
    remote: str
    local_ts: tuple[str, ...]
    remote_ts: tuple[str, ...]
    local_name: str
    remote_name: str
    encapsulated: bool
    """Whether the pair uses UDP encapsulation, so that either end may look NATed."""
    automatic: bool = False
    """Whether it may yet do so, if ESP turns out not to pass: no violation, then, but too early."""
    admits: Callable[[IkeSa], Reason] | None = None
    """Of a host of a block, which may have any identity: why one is not let in."""
    slack: float = 0.0
    """Seconds by which charon makes lives shorter at random."""

    def breach(self, sa: IkeSa) -> Reason:
        """In what an established IKE_SA or one of its CHILD_SAs is not as agreed; empty if in nothing.

        What charon did not tell of it is no breach: it tells all of this of every established IKE_SA."""
        if not sa.established:
            return NONE
        if self.admits is not None and (refused := self.admits(sa)):
            return refused
        return (
            _differs("address", sa.local_host, self.local)
            or _differs("peer's address", sa.remote_host, self.remote)
            or _named("identity", sa.local_id, self.local_name)
            or _named("peer's identity", sa.remote_id, self.remote_name)
            or self._nat(sa)
            or next((fault for child in sa.children if (fault := self._child_breach(child))), NONE)
        )

    def certified_elsewhere(self, certificate: SeenCertificate) -> Reason:
        """Why a certificate does not prove the peer's address; empty if it does, or lists none."""
        listed = certificate.addresses
        if not listed or _parsed(self.remote) in listed or not self.remote:
            return NONE
        told = ", ".join(map(str, listed))[:200]
        return not_as_agreed(
            f"the peer's certificate {certificate.serial:x} is for {told}, not for {self.remote}; "
            "have one issued for all of its addresses, or set credentials.addresses to ignore"
        )

    def _nat(self, sa: IkeSa) -> Reason:
        if self.encapsulated or not (sa.nat_local or sa.nat_remote):
            return NONE
        if self.automatic:
            return UDP_NOT_NEEDED
        return not_as_agreed(
            "the peer looks as if it were behind NAT, and could move the association to any address; "
            "if that is meant, set connection.encapsulation at both ends"
        )

    def _child_breach(self, child: ChildSa) -> Reason:
        if child.state not in HELD_BY_KERNEL:
            return NONE
        if child.mode != "TRANSPORT":
            return not_as_agreed(f"the CHILD_SA came up in {child.mode.lower()} mode, not in transport mode")
        if child.protocol != "ESP":
            return not_as_agreed(f"the CHILD_SA is {child.protocol}, not ESP")
        if child.encap and not self.encapsulated:
            words = "the CHILD_SA is encapsulated in UDP, which the pair did not ask for"
            return UDP_NOT_NEEDED if self.automatic else not_as_agreed(words)
        for whose, selectors, agreed, address in (
            ("local", child.local_ts, self.local_ts, self.local),
            ("remote", child.remote_ts, self.remote_ts, self.remote),
        ):
            if selectors and selectors != agreed:
                told = ", ".join(selectors)[:200]
                return not_as_agreed(f"the CHILD_SA's {whose} selectors are {told}, not all of {address}")
        return NONE


def uncertified(mine: Credentials, host: Host) -> list[Problem]:
    """Addresses of this host that its certificate does not list, though it lists some."""
    missing = [one for one in host.addresses if mine.addresses and one not in mine.addresses]
    if not missing or not mine.validities:
        return []
    file, listed = mine.validities[0].file, ", ".join(map(str, mine.addresses))
    message = f"does not list {', '.join(map(str, missing))} of host.addresses: peers end associations there"
    remedy = "have one issued for every address of the host (swanmesh enroll request)"
    return [Problem(file, "credentials.certificate", shown(listed), message, remedy)]


def _differs(what: str, told: str, agreed: str) -> Reason:
    if not told or told == agreed or _parsed(told) == _parsed(agreed) is not None:
        return NONE
    return not_as_agreed(f"the {what} of the IKE_SA is {told}, not {agreed}")


def _named(what: str, told: str, agreed: str) -> Reason:
    if not told or agreed == ANYBODY or told.lower() == agreed:
        return NONE
    return not_as_agreed(f"the {what} is {told}, not {agreed}")


@lru_cache(maxsize=256)
def _parsed(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
