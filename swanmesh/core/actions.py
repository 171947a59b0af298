"""What the core can ask the edge to do. Every action names its peer and carries its reason (one text that the
log, `swanmesh plan`, the event stream and the metric share)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from swanmesh.core.model import AddressPair, Credentials

Value: TypeAlias = "str | bytes | list[str] | list[bytes] | dict[str, Value]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A desired connection: what `load-conn` gets under `name`, and the digest that tells whether it is."""

    name: str
    child: str
    """Name of its one CHILD configuration, which carries the digest of all of `body`."""
    peer: str
    body: dict[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCredentials:
    """Load the private key and the certificate of this host, and the authorities of the mesh: charon has
    these with each connection, and `clear-creds` takes them from it nevertheless."""

    certificate: bytes
    private_key: bytes
    authorities: tuple[bytes, ...] = ()
    reason: str
    peer: str = ""

    def __repr__(self) -> str:
        return f"LoadCredentials(reason={self.reason!r})"


MISSING_CREDENTIALS = "charon does not hold this host's certificate and key, or the mesh's authorities"


def load_credentials(mine: Credentials, reason: str) -> LoadCredentials:
    return LoadCredentials(
        certificate=mine.certificate,
        private_key=mine.private_key,
        authorities=mine.authorities,
        reason=reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConnection:
    connection: Connection
    reason: str

    @property
    def peer(self) -> str:
        return self.connection.peer


@dataclass(frozen=True, slots=True, kw_only=True)
class UnloadConnection:
    name: str
    peer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Initiate:
    """Bring up `child` of `connection`; under an IKE_SA of it if one stands, else under a new one."""

    connection: str
    child: str
    peer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateIke:
    unique_id: int
    connection: str
    peer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateChild:
    unique_id: int
    connection: str
    peer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RekeyChild:
    unique_id: int
    connection: str
    peer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RekeyIke:
    unique_id: int
    connection: str
    peer: str
    reason: str
    reauth: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePolicies:
    """Put an association's two policies back into the kernel, past charon, which believes them there."""

    connection: str
    peer: str
    addresses: AddressPair
    reqid: int
    replace: bool
    """Whether what stands in their place goes; else it is charon's, which came first."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPolicies:
    """Have charon install the policies of a trap or shunt again (`install`)."""

    connection: str
    child: str
    peer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveKernel:
    """Look at all states and policies of the kernel."""

    reason: str
    peer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveSas:
    """Look at all IKE_SAs (`list-sas`)."""

    reason: str
    peer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveAll:
    """Look at connections, credentials and IKE_SAs."""

    reason: str
    peer: str = ""


Action: TypeAlias = (
    LoadCredentials
    | LoadConnection
    | UnloadConnection
    | Initiate
    | TerminateIke
    | TerminateChild
    | RekeyChild
    | RekeyIke
    | RestorePolicies
    | InstallPolicies
    | ObserveKernel
    | ObserveSas
    | ObserveAll
)
