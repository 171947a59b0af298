"""What others may want to know: one value that the event stream shows, hooks get and the log writes."""

from __future__ import annotations

from typing import Any

import msgspec

from swanmesh.core.model import Peer
from swanmesh.core.reasons import NONE, Reason


class MeshEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the event stream. As JSON, fields are only ever added, and empty ones are left out."""

    kind: str = msgspec.field(name="event")
    """peer-added, peer-up, peer-down, peer-removed, peer-violation, removal-held, certificate-expiring,
    certificate-due, certificate-renewed, charon-lost, charon-back, started, stopping, and `action` for each
    action carried out."""
    time: float = 0.0
    """Seconds since the epoch; the core, which has no such clock, leaves it to who tells."""
    peer: str = ""
    """Empty for what concerns no single peer."""
    addresses: tuple[str, ...] = ()
    reason: str = ""
    """In words."""
    reason_code: str = ""
    details: dict[str, Any] = {}
    """Of an `action`: `action` (its verb), `target`, and `error` where it was refused."""
    test: bool = False
    """Nothing happened: `swanmesh hooks test` made it up."""

    @classmethod
    def of(cls, kind: str, peer: Peer | None = None, reason: Reason = NONE) -> MeshEvent:
        return cls(
            kind=kind,
            peer=peer.title if peer else "",
            addresses=tuple(str(address) for address in peer.addresses) if peer else (),
            reason=reason.words,
            reason_code=reason.code,
        )
