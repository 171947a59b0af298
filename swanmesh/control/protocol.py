"""What crosses the control socket: HTTP with JSON over a Unix socket; `reports` has what
`status` tells.

Fields are only ever added; a client passes over what it does not know. Times are seconds since the epoch,
ages and waits seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol

import msgspec

from swanmesh.control.reports import (
    SCHEMA,
    BlockStatus,
    ClearText,
    PeerState,
    StatusReply,
    Traffic,
    TrialStatus,
)
from swanmesh.core.events import MeshEvent


class PlannedAction(msgspec.Struct, kw_only=True):
    """One thing that would be done, with its reason."""

    action: str
    peer: str
    target: str
    """The connection or SA that it acts on."""
    reason: str
    due: float | None = None
    """When, if not now."""
    reason_code: str = ""
    blocked: str = ""
    """Why it is not done yet, in words."""


class PlanReply(msgspec.Struct, kw_only=True):
    actions: list[PlannedAction]
    charon_reachable: bool


class PeerPolicy(msgspec.Struct, kw_only=True):
    """One peer on the way to `require`."""

    name: str
    addresses: list[str]
    policy: str
    """What is in force."""
    own: str | None
    """What the peer's own file states; None if it takes the host's."""
    file: str
    state: PeerState
    up_since: float | None
    """When the last of its address pairs was noticed to have come up; null unless all are."""
    member: bool | None
    """Whether it answers with a certificate of the mesh; null as long as that is not known."""
    obstacle: str
    """What stands in the way of `require`, in words; empty if nothing does."""
    obstacle_code: str
    lacks: list[int]
    """IP versions that this host has an address of and the peer none; none for what a block let in."""
    settled: bool
    """Whether charon holds what the policy calls for."""
    traffic: Traffic = Traffic()
    """What crossed encrypted."""
    clear: ClearText | None = None
    """When something crossed in clear last, or was refused; null where it is not seen."""
    exempt: list[str] = []
    """What stays in clear with it by choice, if it exempts the same."""
    block: str = ""
    """The block that it was met under, if no file describes it."""


class PolicyReply(msgspec.Struct, kw_only=True):
    schema: int = SCHEMA
    policy: str
    """The host's, in force."""
    stated: str
    """What `swanmesh.yaml` states."""
    disabled: float | None
    """Since when `disable` holds; null if it does not."""
    trial: TrialStatus | None
    state: str
    """The service's own folder, where commands put their records."""
    peers: list[PeerPolicy]
    blocks: list[BlockStatus] = []
    """Of a request for all peers."""


class ReloadRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Read files again now. `files` narrows it to those peer files (paths); null means everything."""

    files: list[str] | None = None
    removed: bool = False
    """Those of `files` that are gone were removed on purpose: their peers go at once, however many."""


class ReloadReply(msgspec.Struct, kw_only=True):
    changed: list[str]
    """Names of the peers added, changed or removed by this reload."""
    problems: list[str]


class HeldReply(msgspec.Struct, kw_only=True):
    """What is held back until somebody confirms it."""

    problems: list[str]
    peers: list[str]
    """Names of the peers whose removal is held."""


ConfirmSubject = Literal["removal", "revocation"]


class ConfirmRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    subject: ConfirmSubject


class ConfirmReply(msgspec.Struct, kw_only=True):
    peers: list[str]
    """Names of the peers that are removed or ended now; empty if nothing was held."""


Command = Literal["up", "down", "rekey"]


class PeerCommandRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Nothing is asked of any peer if one of them is not known."""

    command: Command
    peers: list[str]
    """By name, a short name or an address. None: a `rekey` of every peer that is up, one by one."""
    wait: float = 0.0
    """Seconds that the answer may wait for it to be so."""


class PeerCommandReply(msgspec.Struct, kw_only=True):
    """What is so, and what was asked for and is not so yet. Both by the peer's full name, in words."""

    done: dict[str, str]
    waiting: dict[str, str]
    spread: str = ""
    """What goes on by itself after this answer, in words."""


class RenewRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new certificate for this host, if it is due or `now` is asked for."""

    now: bool = False
    wait: float = 0.0
    """Seconds that the answer may wait for the outcome."""


class RenewReply(msgspec.Struct, kw_only=True):
    outcome: Literal["renewed", "not-due", "failed", "under-way"]
    why: str = ""
    """In words, why it failed."""
    not_after: float = 0.0
    """The end of the certificate in use."""
    next_renewal: float | None = None


class WaitReply(msgspec.Struct, kw_only=True):
    """`missing` is empty when everything asked for is up (or, waiting for absence, gone)."""

    missing: dict[str, str]
    """Name to reason."""


class ErrorReply(msgspec.Struct, kw_only=True):
    error: str
    remedy: str = ""


class Service(Protocol):
    """What the daemon offers; the server turns HTTP into calls of it. All run on the daemon's loop. Peers are
    asked for by name, short name or address; each raises NoSuchPeer for one that nobody, or more than one, is
    called."""

    async def status(self, peers: list[str] | None = None, *, fresh: bool = False) -> StatusReply:
        """State of all peers or those named. `fresh`: look at charon first, if that is quickly done."""
        ...

    def plan(self) -> PlanReply: ...

    async def policy(self, peers: list[str] | None = None, *, settle: float = 0.0) -> PolicyReply:
        """How all peers or those named stand on the way to `require`. `settle`: seconds to wait for charon to
        hold what their policies call for."""
        ...

    async def metrics(self) -> bytes:
        """Prometheus' text format."""
        ...

    async def reload(self, request: ReloadRequest) -> ReloadReply: ...

    def held(self) -> HeldReply: ...

    def confirm(self, request: ConfirmRequest) -> ConfirmReply: ...

    async def command(self, request: PeerCommandRequest) -> PeerCommandReply:
        """Ask it of charon, and wait up to `request.wait` seconds for it to be so."""
        ...

    async def renew(self, request: RenewRequest) -> RenewReply: ...

    async def wait(self, peers: list[str] | None, timeout: float, *, gone: bool = False) -> WaitReply:
        """Until the peers (None: all) are up, or no longer known and their associations ended (`gone`), or
        `timeout` seconds are over."""
        ...

    def events(self) -> AsyncIterator[MeshEvent]:
        """Everything from now on. A reader that falls behind loses the oldest and is told how many by a
        record `lost`."""
        ...
