"""The words of the core: hosts, peers, address pairs, settings and problems, as plain values."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from swanmesh.core.settings.exemptions import Exemption
from swanmesh.core.settings.override import HOST, NOTHING, Override
from swanmesh.core.settings.policy import Policy
from swanmesh.core.settings.setting import ESP_PROPOSALS, IKE_PROPOSALS, Count, Port, Seconds

DAY = 86400.0
REAUTH = 20 * 86400
"""Seconds after which charon authenticates anew by itself, less a random part: long after we would have."""
ExpiredLists: TypeAlias = Literal["warn", "refuse"]
CertifiedAddresses: TypeAlias = Literal["match", "ignore"]
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, order=True)
class AddressPair:
    """One local and one remote address of a family: what a connection joins."""

    local: Address
    remote: Address

    def __str__(self) -> str:
        return f"{self.local} to {self.remote}"


@dataclass(frozen=True, slots=True, order=True)
class AddressBlock:
    """One local address, and all remote ones of a network: whom a connection lets in."""

    local: Address
    remote: Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """This host: the identity in its certificate, and the addresses that its peers reach it at."""

    name: str
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another host, as this one's files describe it."""

    name: str
    addresses: tuple[Address, ...]
    policy: Policy | None = None
    """The peer's own policy; None takes the host's."""
    exempt: tuple[Exemption, ...] | None = None
    """The peer's own exemptions; None takes the host's."""
    source: str = field(default="", compare=False)
    """The file that says so, for errors."""
    block: str = ""
    """The block that it was met under, if no file describes it. Its name is then its address."""
    met_at: tuple[Address, ...] = ()
    """At which of this host's addresses it was met; empty for all."""
    proved: str = field(default="", compare=False)
    """The identity that it proved, if it was met under a block."""

    @property
    def title(self) -> str:
        """What people call it."""
        return self.proved or self.name

    @property
    def claims(self) -> tuple[str | Address | Network, ...]:
        """What no other file may describe."""
        return (self.name, *self.addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A network of hosts that nobody wrote down one by one: who is in it and has a certificate of the mesh is
    a member."""

    name: str
    """Its file's, without the ending."""
    cidr: Network
    policy: Policy | None = None
    """The policy with every host of it; None takes the host's."""
    exceptions: tuple[Network, ...] = ()
    """What in it is no part of it, as single hosts or networks, and passes in clear."""
    source: str = field(default="", compare=False)
    """The file that says so, for errors."""

    @property
    def claims(self) -> tuple[str | Address | Network, ...]:
        """What no other file may describe."""
        return (self.name, self.cidr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """When one certificate begins and ends, in seconds since the epoch, and where it was found."""

    file: str
    key: str
    subject: str
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What this host proves itself with, and whom it believes. DER throughout."""

    certificate: bytes
    private_key: bytes = field(repr=False)
    """PKCS#8 DER: secret. Never logged, never in a repr."""
    key_id: str
    """SHA-1 of the SubjectPublicKey bit string in hex: charon's name of the key (`get-keys`)."""
    authorities: tuple[bytes, ...]
    not_before: float
    """The certificate's beginning, in seconds since the epoch; `not_after` its end."""
    not_after: float
    validities: tuple[Validity, ...] = field(default=(), compare=False)
    """Of this certificate and of the authorities."""
    serial: int = field(default=0, compare=False)
    issuer: str = field(default="", compare=False)
    """Which authority signed this certificate, as `SeenCertificate.issuer` names it."""
    issuers: frozenset[str] = field(default=frozenset(), compare=False)
    """The root authorities that this host believes, named likewise. One between them and a host may change
    without anybody being believed less."""
    addresses: tuple[Address, ...] = field(default=(), compare=False)
    """Those that this certificate lists."""
    since: float = field(default=0.0, compare=False)
    """When this certificate was put where it lies, in seconds since the epoch."""

    def holds(self, wall: float) -> bool:
        """Whether the certificate has begun and not ended at that time (seconds since the epoch)."""
        return self.not_before <= wall < self.not_after

    @property
    def certificate_id(self) -> str:
        """SHA-256 of the certificate in hex."""
        return hashlib.sha256(self.certificate).hexdigest()

    @property
    def authority_ids(self) -> tuple[str, ...]:
        """SHA-256 of each authority's certificate in hex."""
        return tuple(hashlib.sha256(authority).hexdigest() for authority in self.authorities)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """How each connection is made. Durations in seconds."""

    ike_proposals: Annotated[tuple[str, ...], IKE_PROPOSALS] = (
        "aes128gcm16-prfsha256-x25519",
        "aes128gcm16-prfsha256-ecp256",
    )
    esp_proposals: Annotated[tuple[str, ...], ESP_PROPOSALS] = (
        "aes128gcm16-x25519-esn",
        "aes128gcm16-ecp256-esn",
    )
    dpd_delay: Annotated[int, Seconds(1, 3600, whole=True)] = 5
    """Silence after which charon asks the peer for a sign of life; charon's default is never."""
    ike_rekey: Annotated[int, Seconds(10, 30 * DAY, whole=True)] = 4 * 3600
    ike_reauth: Annotated[int, Seconds(10, 365 * DAY, whole=True)] = 24 * 3600
    """After so long a peer whose certificate is not known is authenticated anew (`decide/`)."""
    child_rekey: Annotated[int, Seconds(10, 30 * DAY, whole=True)] = 3600
    replay_window: Annotated[int, Count(32, 4096)] = 1024
    """Packets. charon's default of 32 drops reordered packets at Gbit/s; the kernel keeps 4096 at most:
    XFRMA_REPLAY_ESN_MAX in linux/xfrm.h."""
    encap: bool = False
    """ESP in UDP even without NAT: the way round a network that drops protocol 50 but lets UDP pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitiationSettings:
    """When and how often an association is brought up. Durations in seconds."""

    in_flight: Annotated[int, Count(1, 10_000, auto=True)] = 32
    """Initiations of ours under way at once, at most."""
    takeover: Annotated[float, Seconds(0, 3600)] = 20.0
    """How long the side that is not the pair's initiator waits before it initiates itself."""
    backoff_base: Annotated[float, Seconds(0.01, 3600)] = 1.0
    backoff_ceiling: Annotated[float, Seconds(0.01, DAY)] = 60.0
    stable: Annotated[float, Seconds(0, DAY)] = 60.0
    """An association that lived this long sets its pair's backoff back to the start."""
    start_jitter: Annotated[float, Seconds(0, 3600)] = 0.5
    """The first initiation of a pair waits a random part of this, so that hosts started together spread."""
    attempt_look: Annotated[float, Seconds(0.1, 3600)] = 12.0
    """After so long without an outcome charon is asked whether it still tries: a timed out IKE_SA_INIT
    ends without any event (strongSwan 5.9.8, sa/ike_sa.c:2434)."""
    duplicate_settle: Annotated[float, Seconds(0, 3600)] = 10.0
    """How long two associations of one pair must stand side by side before one counts as a duplicate:
    longer than the overlap of a rekey, a reauthentication or a make-before-break."""
    resync: Annotated[float, Seconds(1, DAY)] = 60.0
    """The slow safety net: charon is looked at as a whole this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """How it is found out whether data passes through associations."""

    port: Annotated[int, Port()] = 4510
    """UDP port of the service that answers, here and at the peers; 0: nothing is asked or answered."""
    interval: Annotated[float, Seconds(1, 300)] = 5.0
    """Seconds without a packet after which a pair is asked. Many pairs take longer (`probing.QUIET_RATE`)."""
    again: Annotated[float, Seconds(1, DAY)] = 300.0
    """Seconds after which what did not pass is tried again: ESP by itself, or inside UDP. Then twice as long
    each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of `swanmesh.yaml` that decisions need, with the credentials it names."""

    host: Host
    credentials: Credentials
    policy: Policy = Policy.REQUIRE
    """What `swanmesh.yaml` states."""
    connection: ConnectionSettings = ConnectionSettings()
    initiation: InitiationSettings = InitiationSettings()
    override: Override = NOTHING
    """What holds instead of it, and of the peers' files, for a while."""
    probe: ProbeSettings = ProbeSettings()
    path_mtu: bool = True
    """Whether paths that drop large packets and tell nobody are found and made known to the kernel."""
    automatic_encapsulation: bool = False
    """Whether ESP goes inside UDP where, and as long as, it does not pass by itself."""

    @property
    def host_policy(self) -> Policy:
        """What holds for peers that have no policy of their own."""
        if self.override.disabled:
            return Policy.OFF
        return self.override.policy(HOST, self.policy) or self.policy

    addresses: CertifiedAddresses = "match"
    """Whether a certificate that lists addresses must list the peer's."""
    exempt: tuple[Exemption, ...] = ()
    """What stays in clear with every peer that has no list of its own."""
    crl_expired: ExpiredLists = "warn"
    """Whether a revocation list past its date still lets peers be authenticated that are not on it."""

    def exemptions_of(self, peer: Peer | Block) -> tuple[Exemption, ...]:
        """What stays in clear with the peer or block by choice: its own list, else the host's."""
        own = peer.exempt if isinstance(peer, Peer) else None
        return self.exempt if own is None else own

    def policy_of(self, peer: Peer | Block) -> Policy:
        """What holds for the peer or block: its own policy, else the host's."""
        if self.override.disabled:
            return Policy.OFF
        entry = peer.block or peer.name if isinstance(peer, Peer) else peer.name
        return self.override.policy(entry, peer.policy) or self.host_policy


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in what people wrote: where, what, and what to do about it."""

    file: str
    key: str
    """Path of the key inside the file, such as `addresses[1]`; empty for the file as a whole."""
    value: str
    """What stands there, shortened and printable; empty where there is no value to show."""
    message: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        value = f" ({self.value})" if self.value else ""
        return f"{where}{value}: {self.message}; {self.remedy}"


class InvalidInput(Exception):
    """Input that nothing was done with; carries every problem found, not only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def shown(value: object, limit: int = 60) -> str:
    """The value as an error message may show it: one printable line of at most `limit` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
