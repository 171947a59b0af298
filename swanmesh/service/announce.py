"""What happens, told to all who want to know: one line in the log, one count, one record in the stream."""

from __future__ import annotations

import time

import structlog

from swanmesh.control.metrics import Counters
from swanmesh.control.protocol import EventRecord
from swanmesh.core.actions import Action
from swanmesh.core.state import MeshEvent
from swanmesh.hooks.runner import Hooks
from swanmesh.service.feed import Feed


class Teller:
    """Each action and event with its one reason, the same words everywhere."""

    def __init__(
        self, log: structlog.typing.FilteringBoundLogger, counters: Counters, feed: Feed, hooks: Hooks
    ) -> None:
        self._log = log
        self._counters = counters
        self._feed = feed
        self._hooks = hooks

    def action(self, action: Action, error: str | None) -> None:
        """An action is over; `error` says why it was refused, if it was."""
        word = action.verb
        self._counters.count_action(word, action.reason.code, accepted=error is None)
        details = {"target": action.target}
        if error is not None:
            details["error"] = error
            self._log.error(word, peer=action.peer, reason=action.reason.words, **details)
        else:
            level = self._log.debug if action.quiet else self._log.info
            level(word, peer=action.peer, reason=action.reason.words, **details)
        if not action.quiet:
            details["action"] = word
            self._publish("action", action.peer, [], action.reason.words, details)

    def event(self, event: MeshEvent) -> None:
        """A peer, or charon, came or went."""
        name = event.peer.name if event.peer else ""
        addresses = [str(address) for address in event.peer.addresses] if event.peer else []
        self._log.info(event.kind, peer=name, reason=event.reason.words)
        self._publish(event.kind, name, addresses, event.reason.words, {})

    def service(self, kind: str) -> None:
        """The service itself: `started`, `stopping`."""
        self._publish(kind, "", [], "", {})

    def _publish(
        self, kind: str, peer: str, addresses: list[str], reason: str, details: dict[str, str]
    ) -> None:
        record = EventRecord(
            event=kind,
            time=time.time(),
            peer=peer,
            addresses=addresses,
            reason=reason,
            details=dict(details),
        )
        self._feed.publish(record)
        if kind != "action":
            self._hooks.submit(record)
