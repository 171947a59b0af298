"""What happens, told to all who want to know: one line in the log, one count, one event in the stream."""

from __future__ import annotations

import time
from collections import deque

import structlog
from msgspec.structs import replace

from swanmesh.control.counters import Counters
from swanmesh.core.actions import Action
from swanmesh.core.events import MeshEvent
from swanmesh.core.reasons import FLOODING, NOT_AS_AGREED, Cause
from swanmesh.hooks.runner import Hooks
from swanmesh.service.feed import Feed

_REMEMBERED = 5
_WARNINGS = frozenset(
    {
        *("peer-violation", "removal-held", "certificate-expiring", "certificate-due", "peer-down"),
        *("certificate-revoked", "revocation-held", "crl-expired"),
    }
)
"""Kinds of events that somebody should look at."""


class Announcer:
    """Each action and event with its one reason, the same words everywhere."""

    def __init__(
        self, log: structlog.typing.FilteringBoundLogger, counters: Counters, feed: Feed, hooks: Hooks
    ) -> None:
        self._log = log
        self._counters = counters
        self._feed = feed
        self._hooks = hooks
        self._history: dict[str, deque[MeshEvent]] = {}

    def action(self, action: Action, error: str | None, *, wanted: bool = True) -> None:
        """An action is over; `error` says why it was refused, if it was. `wanted`: whether its peer still
        stands in a file; what is refused because a peer on its way out is gone already is no error."""
        word, reason = action.verb, action.reason
        self._counters.count_action(word, reason.code, accepted=error is None)
        details = {"target": action.target}
        if error is not None:
            details["error"] = error
            level = self._log.error if wanted else self._log.info
            level(word, peer=action.peer, reason=reason.words, code=reason.code, **details)
        else:
            level = self._log.debug if action.quiet else self._log.info
            if reason.code in (NOT_AS_AGREED, FLOODING, Cause.CERTIFICATE_REVOKED):
                level = self._log.warning
            level(word, peer=action.peer, reason=reason.words, code=reason.code, **details)
        if not action.quiet:
            event = MeshEvent.of("action", reason=reason)
            self._publish(replace(event, peer=action.peer, details={"action": word, **details}))

    def event(self, event: MeshEvent) -> None:
        """A peer, or charon, came or went."""
        level = self._log.warning if event.kind in _WARNINGS else self._log.info
        level(event.kind, peer=event.peer, reason=event.reason, code=event.reason_code)
        self._remember(self._publish(event))

    def service(self, kind: str) -> None:
        """The service itself: `started`, `stopping`."""
        self._publish(MeshEvent(kind=kind))

    def history(self, peer: str) -> list[MeshEvent]:
        """The last times that the peer went down, came back or did what it should not since the service
        started, the latest last."""
        return list(self._history.get(peer, ()))

    def _publish(self, event: MeshEvent) -> MeshEvent:
        event = replace(event, time=time.time())
        self._feed.publish(event)
        if event.kind != "action":
            self._hooks.submit(event)
        return event

    def _remember(self, event: MeshEvent) -> None:
        """Of peers that went down or did wrong at least once: most never do."""
        if event.kind in ("peer-down", "peer-violation") or (
            event.kind == "peer-up" and event.peer in self._history
        ):
            self._history.setdefault(event.peer, deque(maxlen=_REMEMBERED)).append(event)
        elif event.kind == "peer-removed":
            self._history.pop(event.peer, None)
