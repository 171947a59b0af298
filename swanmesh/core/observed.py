"""What charon holds, as the VICI adapter reports it: IKE_SAs, their CHILD_SAs, loaded connections, events.

Identity is charon's unique id throughout. A connection's name says which pair an SA belongs to and nothing
more: duplicates and zombies of one name live side by side. Ages and counters take no part in comparison, so
that two looks at an unchanged association are equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from swanmesh.core.model import Address
from swanmesh.core.reasons import Reason

ESTABLISHED = frozenset({"ESTABLISHED", "REKEYING"})
"""IKE_SA states in which its CHILD_SAs work (sa/ike_sa.h). REKEYED is the old one after the exchange."""
UNDER_WAY = frozenset({"CREATED", "CONNECTING"})
INSTALLED = frozenset({"INSTALLED", "REKEYING", "UPDATING"})
"""CHILD_SA states in which the kernel holds it and nothing replaces it yet (sa/child_sa.h)."""
HELD_BY_KERNEL = INSTALLED | {"REKEYED"}
"""... or something does: such a one still takes packets in."""
ENDING = frozenset({"DELETING", "DESTROYING", "REKEYED"})
"""IKE_SA states of one that goes by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSa:
    """One CHILD_SA. SPIs in hex as charon prints them, ages in seconds."""

    unique_id: int
    name: str
    state: str
    mode: str
    protocol: str = "ESP"
    encap: bool = False
    reqid: int = 0
    spi_in: str = ""
    spi_out: str = ""
    algorithm: str = ""
    """Such as AES_GCM_16-128, with ESN and the key exchange method where charon tells them."""
    local_ts: tuple[str, ...] = ()
    remote_ts: tuple[str, ...] = ()
    bytes_in: int = field(default=0, compare=False)
    bytes_out: int = field(default=0, compare=False)
    packets_in: int = field(default=0, compare=False)
    packets_out: int = field(default=0, compare=False)
    age: float | None = field(default=None, compare=False)
    """Seconds since it was installed."""
    rekey_in: float | None = field(default=None, compare=False)

    @property
    def works(self) -> bool:
        """Installed, ESP and in transport mode: what makes an association."""
        return self.state in INSTALLED and self.mode == "TRANSPORT" and self.protocol == "ESP"


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSa:
    """One IKE_SA with its CHILD_SAs. SPIs in hex as charon prints them, ages in seconds."""

    unique_id: int
    connection: str
    state: str
    initiator: bool
    """Whether this end began it."""
    spi_initiator: str = ""
    spi_responder: str = ""
    local_host: str = ""
    remote_host: str = ""
    local_id: str = ""
    remote_id: str = ""
    nat_local: bool = False
    """Whether this end looks NATed to the other."""
    nat_remote: bool = False
    """Whether the peer looks NATed: charon then follows it to whatever address it speaks from next, mobike or
    not (sa/ike_sa.c, update_hosts)."""
    algorithm: str = ""
    children: tuple[ChildSa, ...] = ()
    tasks_active: tuple[str, ...] = field(default=(), compare=False)
    tasks_passive: tuple[str, ...] = field(default=(), compare=False)
    tasks_queued: tuple[str, ...] = field(default=(), compare=False)
    age: float | None = field(default=None, compare=False)
    """Seconds since it was established; None while it is not."""
    rekey_in: float | None = field(default=None, compare=False)
    reauth_in: float | None = field(default=None, compare=False)

    @property
    def established(self) -> bool:
        return self.state in ESTABLISHED

    @property
    def unheard(self) -> bool:
        """Whether this end began it and nothing has come from the peer yet."""
        return self.initiator and self.state == "CONNECTING" and not self.spi_responder.strip("0")

    @property
    def ending(self) -> bool:
        """Whether it is on its way out. A DELETE that waits for another exchange shows as a task only."""
        return self.state in ENDING or "IKE_DELETE" in (*self.tasks_active, *self.tasks_queued)

    @property
    def makes_child(self) -> bool:
        """Whether charon is still at its first CHILD_SA: `ike-updown` comes before the kernel is asked for
        it, which may then take seconds, until its modules are there."""
        return not self.children and "CHILD_CREATE" in (*self.tasks_active, *self.tasks_passive)

    @property
    def works(self) -> bool:
        """An association: established, with a CHILD_SA installed in transport mode."""
        return self.established and any(child.works for child in self.children)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConnection:
    """A connection that charon holds (`list-conns`)."""

    name: str
    children: tuple[str, ...]
    """Names of its CHILD configurations; ours carry the digest of what was loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCertificate:
    """A host's certificate that charon holds or has seen, and that an authority of the mesh vouches for.
    Times are seconds since the epoch."""

    fingerprint: str
    """SHA-256 of its DER in hex."""
    names: tuple[str, ...]
    """DNS subjectAltNames, in lower case."""
    not_before: float
    not_after: float
    issuer: str = ""
    """Which authority signed it: a digest of its name and key."""
    serial: int = 0
    addresses: tuple[Address, ...] = ()
    """Those among its subjectAltNames."""
    key_id: str = ""
    """charon's name of its key, as `LoadedCredentials.key_ids` has them."""
    der: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCredentials:
    """The credentials that charon holds, by the names the core compares: ours or anybody's."""

    key_ids: frozenset[str]
    certificates: frozenset[str]
    """SHA-256 of the DER of each X.509 certificate loaded, in hex."""
    seen: tuple[SeenCertificate, ...] = ()
    """Those of them that name hosts."""
    revocation_lists: frozenset[str] = frozenset()
    """SHA-256 of the DER of each revocation list, in hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Everything charon holds that the controller compares with, seen in one look."""

    connections: tuple[LoadedConnection, ...]
    sas: tuple[IkeSa, ...]
    credentials: LoadedCredentials


# Events. Each comes from the VICI event named; what a section holds is told in strongSwan's
# plugins/vici/vici_query.c.


@dataclass(frozen=True, slots=True)
class IkeUp:
    """`ike-updown` with up=yes: an IKE_SA, not yet a link."""

    ike: IkeSa


@dataclass(frozen=True, slots=True)
class IkeDown:
    """`ike-updown` without up: it is gone, with all its CHILD_SAs."""

    ike: IkeSa


@dataclass(frozen=True, slots=True)
class ChildUp:
    """`child-updown` with up=yes; `ike.children` holds the CHILD_SAs concerned."""

    ike: IkeSa


@dataclass(frozen=True, slots=True)
class ChildDown:
    """`child-updown` without up; `ike.children` holds the CHILD_SAs concerned."""

    ike: IkeSa


@dataclass(frozen=True, slots=True)
class IkeRekeyed:
    """`ike-rekey`: `new` has taken over the CHILD_SAs of the IKE_SA `old_id`."""

    old_id: int
    new: IkeSa


@dataclass(frozen=True, slots=True)
class ChildRekeyed:
    """`child-rekey`: the CHILD_SA `old_id` of `ike` was replaced by `new`. `ike.children` holds the old
    one with its last counters, where charon tells them."""

    ike: IkeSa
    old_id: int
    new: ChildSa


@dataclass(frozen=True, slots=True)
class IkeMoved:
    """`ike-update`: charon is about to move the IKE_SA and its CHILD_SAs, in the kernel too, to other
    addresses or ports. `ike` has the new ones; its CHILD_SAs are not told."""

    ike: IkeSa


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why an IKE_SA of a connection of ours failed or ended, as charon's log or alert tells; `Cause`
    has the codes."""

    connection: str
    unique_id: int
    cause: Reason


@dataclass(frozen=True, slots=True)
class CertificatesShown:
    """What `list-certs` shows of the peer's certificates just after an IKE_SA came up: the one that it was
    authenticated with is among them, unless charon has forgotten it already."""

    ike: IkeSa
    certificates: tuple[SeenCertificate, ...]


@dataclass(frozen=True, slots=True)
class InitiationRefused:
    """Somebody at `remote` began an IKE_SA with `local`, and charon has no connection for the two."""

    local: str
    remote: str


@dataclass(frozen=True, slots=True)
class Hint:
    """charon's log suggests that it no longer holds all that we loaded."""

    child: str
    """The child whose trap or shunt is gone, by our hand or another's; empty if it is about something
    else."""
    reason: Reason
    unloaded: str = ""
    """Name of a connection, or of its child, that charon no longer holds; empty if that is not certain."""


Event: TypeAlias = (
    IkeUp
    | IkeDown
    | ChildUp
    | ChildDown
    | IkeRekeyed
    | ChildRekeyed
    | IkeMoved
    | Diagnosis
    | Hint
    | InitiationRefused
    | CertificatesShown
)
