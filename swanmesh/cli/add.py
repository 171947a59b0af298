"""What `add-peer` does between its words and its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import click

from swanmesh.cli.batch import from_list, from_words
from swanmesh.cli.failures import ExitStatus, Failure, complain
from swanmesh.cli.output import plural
from swanmesh.cli.setup import Setup
from swanmesh.config.adding import adding
from swanmesh.config.edit import Written
from swanmesh.control.client import RequestRefused, ServiceTimeout, ServiceUnreachable
from swanmesh.control.protocol import ReloadReply
from swanmesh.control.reports import PeerStatus
from swanmesh.core.model import Peer
from swanmesh.core.peers.description import cut_off
from swanmesh.machine.surroundings import needed_now

Untold: TypeAlias = ServiceUnreachable | ServiceTimeout | RequestRefused
_EACH = 20
"""So many peers are reported one by one; more are counted."""
_FILES_AT_ONCE = 200
"""More changed files than this are told as `everything`: a request holds 64 KiB."""


@dataclass(slots=True)
class Outcome:
    """What became of each peer."""

    own_name: str
    written: list[Written]
    untold: Untold | None = None
    """Why the service was not told; None if it was."""
    standing: dict[str, PeerStatus] = field(default_factory=dict)

    @property
    def service(self) -> bool:
        return self.untold is None

    @property
    def awaited(self) -> list[str]:
        """Those that the service is to bring up."""
        return [one.peer.name for one in self.written if one.peer.name != self.own_name and self.service]

    def look(self, setup: Setup) -> None:
        """Ask the service how the peers stand now."""
        if not self.awaited or len(self.awaited) > _EACH:
            return
        try:
            reply = setup.client.status(self.awaited)
        except (RequestRefused, ServiceUnreachable, ServiceTimeout):
            # Removed again, or stopped, in between: what was written stands.
            return
        self.standing = {peer.name: peer for peer in reply.peers}

    def as_json(self) -> list[dict[str, object]]:
        return [
            {
                "name": one.peer.name,
                "file": str(one.path),
                "result": _result(one),
                "own": one.peer.name == self.own_name,
                "dropped": [str(address) for address in one.dropped],
                "state": self.standing[one.peer.name].state if one.peer.name in self.standing else None,
                "reason": self.standing[one.peer.name].reason if one.peer.name in self.standing else "",
            }
            for one in self.written
        ]

    def lines(self) -> Iterator[str]:
        if len(self.written) <= _EACH:
            for one in self.written:
                yield f"{one.peer.name}: {self._words(one)}"
                if one.dropped:
                    yield f"{one.peer.name}: no longer has {', '.join(map(str, one.dropped))}"
        else:
            counts: dict[str, int] = {}
            for one in self.written:
                counts[_result(one)] = counts.get(_result(one), 0) + 1
            sums = ", ".join(f"{count} {result}" for result, count in counts.items())
            yield f"{plural(len(self.written), 'peer')}: {sums}"
        if self.untold is not None and any(one.changed for one in self.written):
            yield f"written, and not loaded yet: {self.untold}; the service reads it as soon as it runs"

    def _words(self, one: Written) -> str:
        if one.peer.name == self.own_name:
            return f"{_result(one)}; this host itself, which passes it over"
        peer = self.standing.get(one.peer.name)
        if peer is None:
            return _result(one)
        return f"{_result(one)}; {peer.state}" + (f" ({peer.reason})" if peer.reason else "")


def _result(one: Written) -> str:
    return "added" if one.created else "updated" if one.changed else "unchanged"


def parse(
    name: str | None, addresses: tuple[str, ...], policy: str | None, list_file: str | None
) -> list[Peer]:
    """The peers that the command line asks for. Raises InvalidInput, and UsageError for a wrong mixture."""
    if list_file is not None:
        if name is not None:
            raise click.UsageError("give either NAME ADDRESS… or --from, not both")
        return from_list(list_file, policy)
    if name is None or not addresses:
        raise click.UsageError("give NAME and at least one ADDRESS, or --from FILE")
    return from_words(name, addresses, policy)


def add(setup: Setup, peers: Sequence[Peer]) -> Outcome:
    """Write the peers' files and tell the service. All or none: whatever is wrong, no file stays behind."""
    config = setup.config
    warnings = cut_off(peers, needed_now(), config.policy, config.exempt)
    complain(*(f"warning: {problem}" for problem in warnings))
    changed: list[Path] = []
    try:
        with adding(config.peers, config.host, peers) as written:
            changed = [one.path for one in written if one.changed]
            reply, untold = tell(setup, changed) if changed else (None, _probe(setup))
            if refused := _refused(reply, changed):
                raise Failure(ExitStatus.INVALID, *refused, "nothing was added")
    except Failure:
        # The service read the files that are gone again.
        tell(setup, changed, removed=True)
        raise
    return Outcome(config.host.name, written, untold)


def tell(
    setup: Setup, paths: Sequence[Path], *, removed: bool = False
) -> tuple[ReloadReply | None, Untold | None]:
    """Have the service read these files; its reply, or why it could not be told. `removed`: those that are
    gone were removed on purpose.

    That is no failure: the files are written, and the service sees or reads them by itself."""
    many = len(paths) > _FILES_AT_ONCE
    reply = None
    try:
        for start in range(0, len(paths), _FILES_AT_ONCE) if removed else (0,):
            some = paths[start : start + _FILES_AT_ONCE]
            reply = setup.client.reload(None if many and not removed else some, removed=removed)
    except (ServiceUnreachable, ServiceTimeout, RequestRefused) as error:
        return None, error
    return reply, None


def _probe(setup: Setup) -> Untold | None:
    """Why the service is not reachable; None if it is."""
    try:
        setup.client.health()
    except (ServiceUnreachable, ServiceTimeout) as error:
        return error
    return None


def _refused(reply: ReloadReply | None, paths: Sequence[Path]) -> list[str]:
    """Problems that the service found with what was just written: another writer was there in between, or
    the files of the service and of this command are not the same."""
    if reply is None:
        return []
    return [problem for problem in reply.problems if any(str(path) in problem for path in paths)]
