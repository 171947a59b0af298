"""This host's certificate over time: renewed when it is due, and told of as its end comes near.

What is decided stands in `core/credentials`; what came of the attempts so far is kept in the
service's own folder, so that a restart neither forgets nor hurries.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import structlog

from swanmesh.config.sections import Config
from swanmesh.control.protocol import RenewReply, RenewRequest
from swanmesh.control.reports import CertificateStatus, StatusReply
from swanmesh.core.credentials.expiry import ExpiryNews, expiring, of_peer, renewed
from swanmesh.core.credentials.renewal import Attempts, due, next_attempt, overdue
from swanmesh.core.events import MeshEvent
from swanmesh.core.inputs.revocation import certificate_of
from swanmesh.core.model import Credentials, InvalidInput, Problem
from swanmesh.core.reasons import Reason
from swanmesh.core.state import State
from swanmesh.files.read import read_trusted
from swanmesh.files.write import Change, NotWritten, make_folder, write_whole
from swanmesh.pki.enrolment import place_of
from swanmesh.pki.renewal import NotRenewed, renew
from swanmesh.service.sources import Sources

_LIMIT = 4 * 1024 * 1024
_PEERS_EVERY = 600.0
_Kept = TypeVar("_Kept")
DUE = "certificate-due"


class Certificates:
    """Looks at what is in force; `look` may be called as often as one likes."""

    def __init__(
        self,
        sources: Sources,
        tell: Callable[[MeshEvent], None],
        log: structlog.typing.FilteringBoundLogger,
        taken_up: Callable[[], object],
    ) -> None:
        """`tell` gets the events, and `taken_up` is called when a new certificate lies in its place."""
        self._sources, self._tell, self._log, self._taken_up = sources, tell, log, taken_up
        self._news = ExpiryNews(_read(self._told_file, dict[str, tuple[int, float]], {}))
        self._looked_at_peers = 0.0
        self._attempts = _read(self._file, Attempts, Attempts())
        self._task: asyncio.Task[str] | None = None

    @property
    def _mine(self) -> Credentials:
        return self._sources.settings.credentials

    @property
    def _config(self) -> Config:
        return self._sources.config

    @property
    def _file(self) -> Path:
        return self._config.state / "renewal.json"

    @property
    def _told_file(self) -> Path:
        return self._config.state / "expiry.json"

    @property
    def _automatic(self) -> bool:
        return bool(self._config.renewal.command)

    @property
    def next_attempt(self) -> float | None:
        """When a renewal is foreseen, in seconds since the epoch; None if none is."""
        if not self._automatic:
            return None
        return next_attempt(self._mine, self._attempts, time.time())

    @property
    def failed(self) -> int:
        """Renewals in a row that came to nothing."""
        return self._attempts.of(self._mine).failed

    def problems(self) -> Iterator[Problem]:
        wall = time.time()
        yield from expiring(self._mine.validities, wall, automatic=self._automatic)
        if (problem := self._overdue(wall)) is not None:
            yield problem

    def show(self, reply: StatusReply) -> None:
        """Put into a status what is known of certificates."""
        reply.certificates = [
            CertificateStatus(
                key=one.key,
                file=one.file,
                subject=one.subject,
                not_before=one.not_before,
                not_after=one.not_after,
            )
            for one in self._mine.validities
        ]
        reply.next_renewal, reply.renewals_failed = self.next_attempt, self.failed

    def look_at_peers(self, state: State) -> None:
        """Tell of the peers' ends that have come nearer: now and then, for there may be thousands."""
        wall = time.time()
        if wall - self._looked_at_peers < _PEERS_EVERY and wall >= self._looked_at_peers:
            return
        self._looked_at_peers = wall
        shown = [(peer, certificate_of(state, peer.name)) for peer in state.peers()]
        validities = {of_peer(peer, seen): peer for peer, seen in shown if seen is not None}
        news = self._news.entered(validities, wall, automatic=True)
        for one, reason in news:
            self._tell(MeshEvent.of("certificate-expiring", validities[one], reason))
        if news:
            self._keep(self._told_file, self._news.told)

    def look(self) -> None:
        """Begin a renewal if one is due, and tell what is new."""
        wall = time.time()
        news = self._news.take(self._mine.validities, wall, automatic=self._automatic)
        for reason in news:
            self._tell(MeshEvent.of("certificate-expiring", reason=reason))
        if news:
            self._keep(self._told_file, self._news.told)
        problem, which = self._overdue(wall), f"{DUE} {self._mine.certificate_id}"
        if problem is not None and which not in self._news.told:
            self._news.told[which] = 1, self._mine.not_after
            self._tell(MeshEvent.of(DUE, reason=Reason(DUE, str(problem))))
            self._keep(self._told_file, self._news.told)
        at = self.next_attempt
        if at is not None and at <= wall:
            self.renew()

    def renew(self, *, outlives: bool = True) -> asyncio.Task[str]:
        """Renew now, or go on with the renewal that is under way. The task returns why it came to nothing;
        nothing if it did not. `outlives`: only with a certificate that ends later than the one in use."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._renew(outlives=outlives))
        return self._task

    async def asked(self, request: RenewRequest) -> RenewReply:
        """By hand: renew if it is due, or at once."""
        outcome: Literal["renewed", "not-due", "failed", "under-way"] = "not-due"
        why = ""
        if request.now or due(self._mine) <= time.time():
            # The renewal goes on if the caller does not wait for it.
            done, _ = await asyncio.wait([self.renew(outlives=not request.now)], timeout=request.wait)
            why = done.pop().result() if done else ""
            outcome = "failed" if why else "renewed" if self._task and self._task.done() else "under-way"
        end, at = self._mine.not_after, self.next_attempt
        return RenewReply(outcome=outcome, why=why, not_after=end, next_renewal=at or due(self._mine))

    def changed(self, before: Credentials) -> None:
        """Other credentials may be in force than `before`."""
        mine = self._mine
        if mine.certificate != before.certificate and mine.validities and before.validities:
            reason = renewed(before.validities[0], mine.validities[0])
            self._tell(MeshEvent.of("certificate-renewed", reason=reason))

    async def close(self) -> None:
        """End what is under way. The pair in use stays, and the key that waits is used next time."""
        if self._task is not None:
            self._task.cancel("the service stops")
            await asyncio.gather(self._task, return_exceptions=True)

    def _overdue(self, wall: float) -> Problem | None:
        return overdue(self._mine, self._attempts, wall, automatic=self._automatic)

    async def _renew(self, *, outlives: bool) -> str:
        config, mine = self._config, self._mine
        how = config.renewal
        if not how.command:
            return "no command is set that renews: set renewal.command"
        try:
            made = await renew(
                place_of(config.host, config.credentials),
                how.command,
                environment=config.environment,
                time_limit=how.time_limit,
                outlives=outlives,
                clock=time.time,
            )
        except NotRenewed as error:
            self._failed(mine, str(error))
            return str(error)
        except Exception as error:
            # An edge of its own: who asked may be gone, and a loop without a pause must not come of it.
            self._log.exception("a fault of swanmesh; please report it")
            self._failed(mine, f"a fault of swanmesh: {error!r}")
            return str(error)
        self._log.info("certificate put in place", until=f"{made.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        self._taken_up()
        if self._mine.certificate != mine.certificate:
            return ""
        why = "a new certificate lies in its place, and is not taken up: see the mistakes in files"
        self._failed(mine, why)
        return why

    def _failed(self, mine: Credentials, why: str) -> None:
        self._attempts = self._attempts.failure(mine, time.time(), why)
        self._log.error("certificate not renewed", failed=self._attempts.failed, reason=why)
        self._keep(self._file, self._attempts)

    def _keep(self, path: Path, what: object) -> None:
        try:
            make_folder(path.parent, 0o700)
            write_whole([Change(path=path, content=msgspec.json.encode(what), mode=0o600)])
        except NotWritten as error:
            # It is remembered for as long as this process lives.
            self._log.warning("not kept over a restart", reason=str(error))


def _read(path: Path, kind: type[_Kept], nothing: _Kept) -> _Kept:
    """What was kept; nothing, if that cannot be read: then something is tried or told once more."""
    try:
        return msgspec.json.decode(read_trusted(path, _LIMIT), type=kind)
    except (InvalidInput, msgspec.MsgspecError):
        return nothing
