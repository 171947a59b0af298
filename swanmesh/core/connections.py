"""Connections as charon holds them for us: their names, their digests, and what they say.

A connection is ours by its name and its child's: both have a shape that nobody else gives by chance. The
child's name ends in a digest of all that was loaded, because charon does not tell proposals back
(plugins/vici/vici_query.c, list_conns): so the digest, too, is read from charon and never kept by us.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import re
from dataclasses import dataclass, fields
from functools import lru_cache

from swanmesh.core.model import Address, AddressBlock, AddressPair, ConnectionSettings, Network
from swanmesh.core.observed import LoadedConnection

_NAME = re.compile(r"swanmesh-([a-z0-9.-]+)-[0-9a-f]{8}", re.ASCII)
_CHILD = re.compile(r"(esp|drop|pass|gate)-[0-9a-f]{16}", re.ASCII)
ANYBODY = "%any"
"""charon's word for an identity that may be any, if the certificate is in order."""
FORMAT = 5
"""Which way of writing connections the digest stands for: a new one when `charon/rendering.py` writes the
same connection differently."""
_ORDER = (
    *("authorities", "ike_proposals", "esp_proposals", "ike_rekey", "ike_reauth", "ike_over"),
    *("child_rekey", "child_over", "dpd_delay", "replay_window", "encap"),
)
"""In which the digest of this FORMAT has the terms; further settings come after them."""


class Kind(enum.StrEnum):
    """What becomes of the packets of a connection. The value begins the name of its CHILD configuration."""

    ASSOCIATION = "esp"
    DROP = "drop"
    """A shunt: they are dropped, and nothing is negotiated."""
    PASS = "pass"  # noqa: S105 - no password but the mode's name
    """A shunt: they cross in clear, and nothing is negotiated."""
    GATE = "gate"
    """Associations that hosts of a block begin are let in, and none is begun by it."""


SHORTER = 10
"""charon makes each life shorter by a random part of a tenth, so that not all associations rekey at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms(ConnectionSettings):
    """What associations are negotiated by: the settings as this charon can keep them, and what follows from
    them. One value for all that agree."""

    authorities: tuple[bytes, ...]
    """DER of those that may vouch for the peer: these alone, sorted, each once."""
    ike_over: int
    """Seconds that a rekeying or reauthentication may take before charon ends the IKE_SA."""
    child_over: int
    revocation: str = ""
    """charon's setting of that name; empty for its default, by which only who is on a list is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection that charon should hold. `charon/rendering.py` writes it as VICI has it."""

    name: str
    child: str
    """Name of its one CHILD configuration: the kind, and the digest of everything else here."""
    peer: str
    """Its identity, or `ANYBODY`; empty for the shunt that concerns no peer."""
    host: str
    """This host's identity; empty likewise."""
    kind: Kind
    trap: bool
    """Whether policies stand in the kernel for as long as it is loaded."""
    addresses: AddressPair | AddressBlock | None
    """Where it is negotiated; None for a shunt, which takes part in no negotiation."""
    local_ts: tuple[str, ...]
    """Traffic selectors as charon prints them, such as 192.0.2.1/32."""
    remote_ts: tuple[str, ...]
    terms: Terms | None
    """None for a shunt."""

    @property
    def shunt(self) -> bool:
        """Whether it never becomes an association. Under a peer's name it is what `down` leaves."""
        return self.kind in (Kind.DROP, Kind.PASS)


def connection_name(peer: str, pair: AddressPair | AddressBlock) -> str:
    """Name of the pair's connection. It stays the same through every change of what is loaded under it.

    VICI names hold 255 bytes; the digest covers what a very long host name loses here. A host of a block goes
    by its address, behind a hyphen, with which no host's name begins.
    """
    digest = hashlib.sha256(f"{peer} {text(pair.local)} to {text(pair.remote)}".encode()).hexdigest()[:8]
    if _is_address(peer):
        return f"swanmesh--{peer.replace(':', '-')}-{digest}"
    return f"swanmesh-{peer[:200]}-{digest}"


def _is_address(name: str) -> bool:
    """Whether this is how a host of a block is called: no host name holds a colon, or ends in a number."""
    return ":" in name or (name[-1:].isdigit() and name.rpartition(".")[2].isdigit())


def ours(name: str) -> bool:
    """Whether a connection or IKE_SA of this name is one of ours."""
    return _NAME.fullmatch(name) is not None


def ours_loaded(connection: LoadedConnection) -> bool:
    return ours(connection.name) and all(_CHILD.fullmatch(child) for child in connection.children)


def peer_of(name: str) -> str:
    """The peer in a connection's name, for words about connections whose peer is known no more."""
    match = _NAME.fullmatch(name)
    found = match.group(1) if match else name
    if not found.startswith("-"):
        return found
    return found[1:] if "." in found else found[1:].replace("-", ":")


def met_under_block(name: str) -> Address | None:
    """The address of the host that was met under a block, if a connection of ours is with one."""
    if not name.startswith("swanmesh--"):
        return None
    try:
        return ipaddress.ip_address(peer_of(name))
    except ValueError:
        return None


def kind_of(child: str) -> Kind:
    """What charon holds under a child's name of ours."""
    return Kind(child.partition("-")[0])


def differences(old: Connection, new: Connection) -> list[str]:
    """Names of what differs, for the reason why it is loaded again."""
    mine, others = _parts(old), _parts(new)
    return [name for name in mine | others if mine.get(name) != others.get(name)]


def _parts(connection: Connection) -> dict[str, object]:
    parts = {field.name: getattr(connection, field.name) for field in fields(connection)}
    agreed = parts.pop("terms")
    del parts["name"], parts["child"]
    return parts | ({field.name: getattr(agreed, field.name) for field in fields(agreed)} if agreed else {})


@lru_cache(maxsize=64)
def text(address: Address | Network) -> str:
    """The address as charon prints it. Kept for a while: each is written several times in a row, and IPv6
    takes 10 µs to write."""
    return str(address)


@lru_cache(maxsize=8)
def _summary(agreed: Terms) -> bytes:
    """Kept, as thousands of connections share them."""
    # What is as charon has it by default is not written, and no part of the digest.
    names = dict.fromkeys((*_ORDER, *(field.name for field in fields(agreed))))
    if not agreed.revocation:
        del names["revocation"]
    words = ", ".join(f"{name}={getattr(agreed, name)!r}" for name in names)
    return hashlib.sha256(f"Terms({words})".encode()).digest()


def make_connection(
    *,
    name: str,
    peer: str,
    host: str,
    kind: Kind,
    local_ts: tuple[str, ...],
    remote_ts: tuple[str, ...],
    trap: bool = True,
    addresses: AddressPair | AddressBlock | None = None,
    agreed: Terms | None = None,
) -> Connection:
    # charon takes two children that differ in name alone for the same (config/child_cfg.c, equals), and then
    # keeps the old one's trap under its old name. So nothing may enter the digest that charon reads as equal,
    # and a new FORMAT goes with a rendering in which charon sees a difference.
    # Of plain str, bytes, numbers and tuples `repr` says all and no more, alike in every process.
    place = (text(addresses.local), text(addresses.remote)) if addresses else ()
    what = (FORMAT, name, peer, host, kind.value, trap, place, local_ts, remote_ts)
    digest = hashlib.sha256(repr(what).encode() + (_summary(agreed) if agreed else b"")).hexdigest()[:16]
    return Connection(
        name=name,
        child=f"{kind}-{digest}",
        peer=peer,
        host=host,
        kind=kind,
        trap=trap,
        addresses=addresses,
        local_ts=local_ts,
        remote_ts=remote_ts,
        terms=agreed,
    )
