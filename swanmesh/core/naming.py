"""Which peer is meant: people ask for `web12` or for an address, and mistype both."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Collection

from swanmesh.core.model import Peer, shown

_LISTED = 5


class NoSuchPeer(Exception):
    """Nobody is called so, or several are. `asked` is what was asked for; the text says what to do."""

    def __init__(self, asked: str, message: str) -> None:
        super().__init__(message)
        self.asked = asked


def find_peer(asked: str, peers: Collection[Peer]) -> Peer:
    """The one peer with this name, one of its addresses, or a name that begins with these labels.

    Raises NoSuchPeer with those that may have been meant.
    """
    wanted = asked.strip().rstrip(".").lower()
    found = [peer for peer in peers if peer.name == wanted] or _by_address(wanted, peers)
    found = found or [peer for peer in peers if peer.name.startswith(f"{wanted}.")]
    if len(found) == 1:
        return found[0]
    if found:
        names = _listed([peer.name for peer in found])
        raise NoSuchPeer(asked, f"{shown(asked)} may be any of {names}; give more of the name")
    near = _listed(_near(wanted, peers))
    remedy = f"did you mean {near}?" if near else "see `swanmesh status` for the names known"
    raise NoSuchPeer(asked, f"no such peer: {shown(asked)}; {remedy}")


def _by_address(wanted: str, peers: Collection[Peer]) -> list[Peer]:
    try:
        address = ipaddress.ip_address(wanted)
    except ValueError:
        return []
    return [peer for peer in peers if address in peer.addresses]


def _near(wanted: str, peers: Collection[Peer]) -> list[str]:
    """Names that are spelt alike: first parts with a first part, since in whole names the domain, which all
    share, makes any two look alike."""
    if "." in wanted:
        return difflib.get_close_matches(wanted, [peer.name for peer in peers], n=3, cutoff=0.88)
    short = {peer.name.partition(".")[0]: peer.name for peer in peers}
    return [short[word] for word in difflib.get_close_matches(wanted, short, n=3)]


def _listed(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
