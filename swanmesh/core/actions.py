"""What the core can ask the edge to do. Every action names its peer, carries its reason, and knows its verb
and its target: one set of words for the log, `swanmesh plan`, the event stream and the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from swanmesh.core.connections import Connection
from swanmesh.core.guard.keeping import Change
from swanmesh.core.model import AddressPair, Credentials
from swanmesh.core.reasons import NONE, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do."""

    reason: Reason
    peer: str = ""
    verb: ClassVar[str]
    """Its name in the log, the plan, the event stream and the metrics."""
    edge: ClassVar[Literal["charon", "kernel", "probe"]] = "charon"
    """Who carries it out."""
    quiet: ClassVar[bool] = False
    """Whether it is no news: a look, of which there are many."""
    about: ClassVar[str] = ""
    """What it acts on, for people, where that is no connection."""

    @property
    def pair(self) -> str:
        """Name of the connection that it is about; empty if it is about none."""
        return ""

    @property
    def target(self) -> str:
        """What it acts on, for people."""
        return self.about or self.pair


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LoadCredentials(Action):
    """Load the private key and the certificate of this host, and the authorities of the mesh: charon has
    these with each connection, and `clear-creds` takes them from it nevertheless."""

    verb = "load-credentials"
    about = "certificate and key"
    certificate: bytes
    private_key: bytes
    authorities: tuple[bytes, ...] = ()
    name: str = ""
    """This host's: older keys for certificates of this name are let go."""

    def __repr__(self) -> str:
        return f"LoadCredentials(reason={self.reason!r})"


def load_credentials(mine: Credentials, name: str, reason: Reason) -> LoadCredentials:
    return LoadCredentials(
        certificate=mine.certificate,
        private_key=mine.private_key,
        authorities=mine.authorities,
        name=name,
        reason=reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LoadRevocationLists(Action):
    """Load these lists (DER): whoever is on one of them is not authenticated any more. Those that are
    authenticated already are none of charon's business."""

    verb = "load-crls"
    about = "revocation lists"
    lists: tuple[bytes, ...]
    fingerprints: frozenset[str]
    """SHA-256 of each in hex."""

    def __repr__(self) -> str:
        return f"LoadRevocationLists(reason={self.reason!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConnection(Action):
    verb = "load"
    connection: Connection

    @property
    def pair(self) -> str:
        return self.connection.name


@dataclass(frozen=True, slots=True, kw_only=True)
class UnloadConnection(Action):
    verb = "unload"
    name: str

    @property
    def pair(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnConnection(Action):
    """Acts on something that charon holds under a connection."""

    connection: str

    @property
    def pair(self) -> str:
        return self.connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Initiate(_OnConnection):
    """Bring up `child` of `connection` under a new IKE_SA."""

    verb = "initiate"
    child: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateIke(_OnConnection):
    """End IKE_SAs with their CHILD_SAs, all in one go."""

    verb = "terminate"
    unique_ids: tuple[int, ...]
    force: bool = False
    """Whether charon drops them without waiting for the peer, as behoves one that is not to be trusted."""

    @property
    def target(self) -> str:
        return f"{self.connection} {' '.join(f'#{unique_id}' for unique_id in self.unique_ids)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnSa(_OnConnection):
    unique_id: int

    @property
    def target(self) -> str:
        return f"{self.connection} #{self.unique_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateChild(_OnSa):
    verb = "terminate-child"


@dataclass(frozen=True, slots=True, kw_only=True)
class RekeyChild(_OnSa):
    verb = "rekey-child"


@dataclass(frozen=True, slots=True, kw_only=True)
class RekeyIke(_OnSa):
    verb = "rekey"
    reauth: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePolicies(_OnConnection):
    """Put an association's two policies back into the kernel, past charon, which believes them there."""

    verb = "restore-policies"
    edge = "kernel"
    addresses: AddressPair
    reqid: int
    replace: bool
    """Whether what stands in their place goes; else it is charon's, which came first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeGuard(Action):
    """Install and delete policies of the guard's."""

    verb = "guard"
    edge = "kernel"
    change: Change

    @property
    def target(self) -> str:
        return f"+{len(self.change.put)} -{len(self.change.drop)} policies"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPolicies(_OnConnection):
    """Have charon install the policies of a trap or shunt again (`install`)."""

    verb = "install"
    child: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveKernel(Action):
    """Look at all states and policies of the kernel."""

    verb = "observe-kernel"
    about = "kernel"
    edge = "kernel"
    quiet = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveSas(Action):
    """Look at all IKE_SAs (`list-sas`)."""

    verb = "observe"
    about = "charon"
    quiet = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveAll(Action):
    """Look at connections, credentials and IKE_SAs."""

    verb = "observe-all"
    about = "charon"
    quiet = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveTraffic(Action):
    """Look at what the kernel has counted of its states."""

    verb = "observe-traffic"
    about = "kernel"
    edge = "kernel"
    quiet = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(_OnConnection):
    """Ask the peer through the association whether it hears this host. Has no outcome: the answer is news."""

    verb = "probe"
    edge = "probe"
    quiet = True
    addresses: AddressPair
    echoes: int
    """How often its kernel is asked as well."""
    silence: int
    """Seconds for which nothing has come from there, to be told; 0 if that is not so."""
    packet: int | None = None
    """Bytes of a packet to be sent beside it, never in fragments: 0 for as many as the kernel believes to
    pass, None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPath(_OnConnection):
    """Tell the kernel how large packets to the peer may be."""

    verb = "limit-packets"
    edge = "kernel"
    addresses: AddressPair
    largest: int
    """Bytes before ESP; 0: as it was."""
    believed: int
    """What the kernel believed to pass."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an action other than a look: `error` is None, or what charon or the kernel said."""

    action: Action
    error: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a pair, what holds that up, and why the pair is not up."""

    action: Action | None = None
    blocked: Reason = NONE
    """Why the action is not carried out yet; empty if it is."""
    due: float | None = None
    """When to decide again if nothing happens before; for a blocked action that waits for its time, when."""
    reason: Reason = NONE
    """Why the pair is not up, or what is wrong with it although it is; empty if all is well."""
    look: Reason = NONE
    """Why charon is to be looked at, at `look_at`."""
    look_at: float = 0.0

    @property
    def ready(self) -> bool:
        """Whether there is an action to carry out now."""
        return self.action is not None and not self.blocked
