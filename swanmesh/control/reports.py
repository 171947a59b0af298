"""What `GET /v1/status` tells.

Fields are only ever added; a client passes over what it does not know. Times are seconds since the epoch,
ages and waits seconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from swanmesh.core.events import MeshEvent

SCHEMA = 1
"""The `schema` of `status --json`; raised only when a field changes its meaning."""

PeerState = Literal["up", "connecting", "down", "disabled"]


class Association(msgspec.Struct, kw_only=True):
    """An IKE_SA with its working CHILD_SA, or what there is of it."""

    ike_id: int
    child_id: int | None
    local: str
    remote: str
    initiator: bool
    state: str
    """In charon's words: the CHILD_SA's state, or the IKE_SA's where it has no CHILD_SA."""
    mode: str = ""
    spi_in: str = ""
    spi_out: str = ""
    ike_algorithm: str = ""
    esp_algorithm: str = ""
    encap: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0
    ike_age: float | None = None
    child_age: float | None = None
    rekey_in: float | None = None
    works: bool = True
    certificate: str = ""
    """Serial number, in hex, of the peer's certificate that it stands on; empty if that is not known."""
    segmentation: str = ""
    """In words, why it does without segmentation through ESP; empty if it is not known to."""


class PairStatus(msgspec.Struct, kw_only=True):
    """One address pair of a peer."""

    local: str
    remote: str
    connection: str
    state: PeerState
    reason: str
    since: float
    next_attempt: float | None
    attempts: int
    """Initiations in a row that came to nothing."""
    reason_code: str = ""
    heard: float | None = None
    """When a packet last came in through it, as far as is known; null where there is no association."""
    encapsulation: str = ""
    """With `encapsulation: auto`: `plain`, or `forced` inside UDP by this host, or `accepted`."""
    answered_by: list[str] = []
    """What at the peer has answered probes: `service`, `kernel`. Where nothing has, counters alone tell."""


class Traffic(msgspec.Struct, kw_only=True, frozen=True):
    """What crossed with a peer since the service began to look, over all rekeys."""

    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0


class PeerCertificate(msgspec.Struct, kw_only=True, frozen=True):
    """A certificate that a peer has shown in IKE."""

    der: bytes
    ike_ids: list[int]
    """The IKE_SAs that stand on it."""
    certain: bool
    """Whether it is certain that they do: else it is the only one seen that it can be."""
    revoked: str = ""
    """In words, which list says so; empty if none does."""


class ClearText(msgspec.Struct, kw_only=True):
    """Packets in clear with a peer: when they came last, out and in, by the kernel's word. Null: none since
    its policies were made."""

    refused: bool
    """Whether they were; else they passed."""
    out: float | None = None
    into: float | None = None
    packets_out: int | None = None
    """How many there were, exempt ones among them; null where nobody counts, as what is refused on its way
    out. Of a host of a block those of the last hour."""
    packets_in: int | None = None


class GuardStatus(msgspec.Struct, kw_only=True):
    """The kernel's guard."""

    expected: bool
    """Whether the kernel can be seen and changed."""
    closed: int
    """Networks, single addresses mostly, that are closed to clear text."""
    missing: int
    """Parts that are to stand and do not, or not yet."""
    udp_4500: str = ""
    """Why UDP 4500 is let in from peers that use no encapsulation; empty if it is kept out."""
    refused: dict[str, int] = {}
    """Packets that blocking policies of this host, the guard's or others', refused since it started: `out`,
    `in`, and `in_expected_encrypted`: from peers that are up, where charon's policies expect them
    encrypted."""


class PeerStatus(msgspec.Struct, kw_only=True):
    """One peer. `up` means that every address pair has a working association."""

    name: str
    addresses: list[str]
    policy: str
    state: PeerState
    since: float
    reason: str
    """Why it is not up, in words; empty while it is."""
    associations: list[Association]
    pairs: list[PairStatus]
    next_attempt: float | None
    reason_code: str = ""
    traffic: Traffic = Traffic()
    violation: str = ""
    """What it brought about lately against the agreement, and was ended; empty if nothing."""
    violations: int = 0
    """How often it did so."""
    lacks: list[int] = []
    """IP versions that this host has an address of and the peer none: what crosses there is in clear."""
    history: list[MeshEvent] = []
    """The last times that it went down or came back, the latest last; of peers that are asked for by name."""
    certificates: list[PeerCertificate] = []
    """Those that it showed in IKE, the one in use first; of peers that are asked for by name."""
    certificate_ends: float | None = None
    """When the certificate ends that it showed last; null if none was seen."""
    block: str = ""
    """The block under which it was met, if no file describes it; `name` is the identity that it proved."""
    exempt: list[str] = []
    """What stays in clear with it by choice, if it exempts the same."""
    clear: ClearText | None = None
    """Null where it is not seen: under the policy `off`, and of hosts met under a block if nobody counts."""


class StrangerStatus(msgspec.Struct, kw_only=True):
    """A host of a block that is no member, as far as is known."""

    address: str
    reason: str
    times: int
    """How often it was asked."""
    again: float
    """From when on a packet to it has it asked again."""
    reason_code: str = ""


class BlockStatus(msgspec.Struct, kw_only=True):
    """One block of addresses. Its members stand among the peers."""

    name: str
    cidr: str
    policy: str
    """What is in force."""
    exceptions: list[str]
    members: int
    """Hosts that proved who they are."""
    up: int
    asked: int
    """Hosts that are being asked who they are."""
    strangers: int
    """Hosts that are no members, of those remembered; what is between this host and them the policy says."""
    listed: list[StrangerStatus] = []
    """The strangers asked last, of a block that is asked for by name; of an address that is, it alone."""
    own: str | None = None
    """What the block's own file states; None if it takes the host's."""


class CharonStatus(msgspec.Struct, kw_only=True):
    reachable: bool
    version: str
    since: float
    reason: str = ""


class HostStatus(msgspec.Struct, kw_only=True):
    name: str
    addresses: list[str]
    policy: str
    swanmesh: str
    """This service's version."""
    started: float


class TrialStatus(msgspec.Struct, kw_only=True):
    """A policy that goes back by itself unless it is confirmed."""

    policy: str
    due: float
    left: float
    """Seconds until then."""
    host: bool
    """Whether it is the host's own policy that is on trial."""
    peers: list[str]
    """Names of the peers whose own policies are."""


class CertificateStatus(msgspec.Struct, kw_only=True, frozen=True):
    """One of this host's certificates, or of its authorities'."""

    key: str
    """The key of the configuration that names its file."""
    file: str
    subject: str
    not_before: float
    not_after: float


class RevocationListStatus(msgspec.Struct, kw_only=True, frozen=True):
    """One authority's revocation list."""

    authority: str
    number: int
    entries: int
    issued: float
    expires: float
    """By when it was to be replaced."""
    source: str
    """The file or URL that it came from."""
    held: bool = False
    """Whether it is not in force, because it would end many peers at once."""


class StatusReply(msgspec.Struct, kw_only=True):
    schema: int = SCHEMA
    host: HostStatus
    charon: CharonStatus
    peers: list[PeerStatus]
    blocks: list[BlockStatus] = msgspec.field(default_factory=list)
    problems: list[str]
    """Mistakes in files that are kept out of force; the last good state goes on."""
    data_path: str = ""
    """How the kernel has the modules for segmentation through ESP; empty before it was looked at."""
    data_path_problems: list[str] = []
    """What an operator should know of it, and do."""
    certificates: list[CertificateStatus] = []
    revocation_lists: list[RevocationListStatus] = []
    """The host's own first, then those of its authorities."""
    next_renewal: float | None = None
    """When the host's certificate is renewed, or that is tried again; null where no command is set for it."""
    renewals_failed: int = 0
    """Renewals in a row that came to nothing."""
    observed: float | None = None
    """When charon was last looked at: bytes, packets and ages are of then."""
    disabled: float | None = None
    """Since when `disable` holds, and everything is in clear; null if it does not."""
    guard: GuardStatus | None = None
    trial: TrialStatus | None = None
    """What goes back by itself unless it is confirmed."""
