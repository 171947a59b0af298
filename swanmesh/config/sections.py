"""The sections of `swanmesh.yaml`, their keys, types, defaults and bounds, for `config` to decode by."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from swanmesh.core.proposals import fault

LogFormat: TypeAlias = Literal["auto", "console", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_PROPOSAL = re.compile(r"[a-z0-9_]+(-[a-z0-9_]+)*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(float):
    """Seconds, or text such as `4h`, `30m`, `1.5s`."""


class WholeSeconds(Duration):
    """A duration that goes to charon, which takes whole seconds."""


class Proposal(str):
    """Algorithms of one proposal for IKE as strongSwan writes them, such as aes128gcm16-prfsha256-x25519."""

    __slots__ = ()


class EspProposal(str):
    """The same for ESP, such as aes128gcm16-x25519-esn."""

    __slots__ = ()


class HostSection(msgspec.Struct):
    name: Any
    addresses: Any


class CredentialsSection(msgspec.Struct):
    certificate: Path
    private_key: Path
    authorities: Annotated[list[Path], msgspec.Meta(min_length=1)]


class CharonSection(msgspec.Struct):
    socket: Path = Path("/run/charon.vici")
    timeout: Duration = Duration(10)


class ControlSection(msgspec.Struct):
    socket: Path = Path("/run/swanmesh/control.sock")
    group: str | None = None


class LogSection(msgspec.Struct):
    level: LogLevel = "info"
    format: LogFormat = "auto"


_Proposals: TypeAlias = Annotated[list[Proposal], msgspec.Meta(min_length=1)]
_EspProposals: TypeAlias = Annotated[list[EspProposal], msgspec.Meta(min_length=1)]


class ConnectionSection(msgspec.Struct):
    ike_proposals: _Proposals | None = None
    esp_proposals: _EspProposals | None = None
    dpd_delay: WholeSeconds | None = None
    ike_rekey: WholeSeconds | None = None
    ike_reauth: WholeSeconds | None = None
    child_rekey: WholeSeconds | None = None
    # The kernel keeps 4096 packets at most: XFRMA_REPLAY_ESN_MAX in linux/xfrm.h.
    replay_window: Annotated[int, msgspec.Meta(ge=32, le=4096)] | None = None
    encap: bool | None = None


class InitiationSection(msgspec.Struct):
    in_flight: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | Literal["auto"] | None = None
    takeover: Duration | None = None
    backoff_base: Duration | None = None
    backoff_ceiling: Duration | None = None
    stable: Duration | None = None
    start_jitter: Duration | None = None
    attempt_look: Duration | None = None
    duplicate_settle: Duration | None = None
    resync: Duration | None = None


class Document(msgspec.Struct):
    host: HostSection
    credentials: CredentialsSection
    policy: Any = "require"
    peers: Path = Path("peers.d")
    hooks: Path = Path("hooks.d")
    charon: CharonSection = msgspec.field(default_factory=CharonSection)
    control: ControlSection = msgspec.field(default_factory=ControlSection)
    log: LogSection = msgspec.field(default_factory=LogSection)
    connection: ConnectionSection = msgspec.field(default_factory=ConnectionSection)
    initiation: InitiationSection = msgspec.field(default_factory=InitiationSection)


BOUNDS: dict[str, tuple[float, float]] = {
    "charon.timeout": (0.1, 600),
    "connection.dpd_delay": (1, 3600),
    "connection.ike_rekey": (10, 30 * 86400),
    "connection.ike_reauth": (10, 365 * 86400),
    "connection.child_rekey": (10, 30 * 86400),
    "initiation.takeover": (0, 3600),
    "initiation.backoff_base": (0.01, 3600),
    "initiation.backoff_ceiling": (0.01, 86400),
    "initiation.stable": (0, 86400),
    "initiation.start_jitter": (0, 3600),
    "initiation.attempt_look": (0.1, 3600),
    "initiation.duplicate_settle": (0, 3600),
    "initiation.resync": (1, 86400),
}
"""Seconds that make sense: below, charon or the network would be kept busy; above, it is a slip."""

REMEDIES = {
    "log.level": "write debug, info, warning or error",
    "log.format": "write auto, console or json",
    "initiation.in_flight": "write a number from 1 to 10000, or auto",
    "connection.replay_window": "write a number of packets from 32 to 4096",
    "connection.encap": "write true or false",
    "credentials.authorities": "give a list of one or more files",
}


def decode(kind: type, value: object) -> object:
    """msgspec's hook for the types of this module and for paths."""
    if kind is Duration:
        return duration(value)
    if kind is WholeSeconds:
        seconds = duration(value)
        if not seconds.is_integer():
            raise ValueError("must be whole seconds")
        return WholeSeconds(seconds)
    if kind is Proposal or kind is EspProposal:
        if not isinstance(value, str) or not _PROPOSAL.fullmatch(value):
            raise ValueError("must be a proposal such as aes128gcm16-x25519-esn, in small letters")
        if words := fault(value, ike=kind is Proposal):
            raise ValueError(f"must be a proposal that charon can read: {words}")
        return kind(value)
    if kind is Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError("must be a path")
        return Path(value)
    raise NotImplementedError(kind)


def duration(value: object) -> Duration:
    """Seconds from a number or from text such as `4h`. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Duration(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be seconds or a number with ms, s, m, h or d, such as 30m")
    return Duration(float(match[1]) * _UNITS[match[2]])
