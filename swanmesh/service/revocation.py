"""Revocation lists for the core: from files, from URLs, and from the last time.

The last good list of each authority lies in the service's own folder: neither a restart nor a URL that is
down brings back who was revoked. One that was held back lies there too: a restart is no confirmation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from swanmesh.core.credentials.revocation import RevocationList, Revocations
from swanmesh.core.model import InvalidInput, Problem
from swanmesh.files.read import read_trusted
from swanmesh.files.write import Change, NotWritten, make_folder, write_whole
from swanmesh.pki.revocation import LIMIT, read_lists
from swanmesh.service.fetching import KEY, Fetching
from swanmesh.service.loop import Loop, now
from swanmesh.service.sources import Sources

_FOLDER = "crls"
_IN_FORCE, _HELD = ".crl", ".held.crl"
"""How the names of files end that hold the last good lists, and those that are held back."""
_READ_AGAIN = 16
"""Contents whose lists are kept read."""
_KEEP_AFTER = 0.2
"""Seconds after which lists are written down: what they call for comes before the disk."""


class RevocationSource:
    """Gathers the lists that `swanmesh.yaml` names, gives them to the core, and keeps what is in force."""

    def __init__(self, sources: Sources, loop: Loop, fetched: Callable[[], None]) -> None:
        """`fetched` is called when a URL brought something else."""
        self.problems: tuple[Problem, ...] = ()
        """What was not taken, and why."""
        self._sources = sources
        self._loop = loop
        self._fetching = Fetching(lambda: sources.config, lambda: sources.settings, time.time, fetched)
        self.run = self._fetching.run
        self._kept: dict[str, str] = {}
        """Fingerprints by the names of the files that were written or read."""
        self._keeping: asyncio.TimerHandle | None = None
        self._unkept: Problem | None = None
        self._read: dict[tuple[bytes, tuple[bytes, ...]], list[RevocationList]] = {}

    def take(self) -> None:
        """The lists that there are, to the core."""
        lists, before = self._gather()
        mesh = self._loop.mesh
        mesh.wall_clock(time.time() - now())
        mesh.revocation_lists(lists, now(), before)
        self._older(lists, mesh.state.revocations)
        self._loop.wake()

    def changed(self) -> None:
        """The same, and what came into force to the disk, once what it calls for is on its way."""
        self.take()
        if self._keeping is None:
            self._keeping = asyncio.get_running_loop().call_later(_KEEP_AFTER, self._keep_now)

    def _keep_now(self) -> None:
        self._keeping = None
        self._loop.guarded(self.keep)

    def close(self) -> None:
        """What waits to be kept is kept now."""
        if self._keeping is not None:
            self._keeping.cancel()
            self._keep_now()

    def _gather(self) -> tuple[list[RevocationList], dict[str, bool]]:
        """All lists that can be had now, the last good ones among them; and of those that were kept, by
        fingerprint, whether they were in force."""
        problems: list[Problem] = []
        found: list[RevocationList] = []
        before: dict[str, bool] = {}
        if self._sources.config.credentials.crls:
            for path in self._stored():
                lists = self._lists(lambda path=path: read_trusted(path, LIMIT), str(path), None)  # type: ignore[misc]
                found += lists
                for one in lists:
                    before[one.fingerprint] = not path.name.endswith(_HELD)
                    self._kept[path.name] = one.fingerprint
        for index, source in enumerate(self._sources.config.credentials.crls):
            found += self._of(source, f"{KEY}[{index}]", problems)
        self.problems = tuple(problems)
        self._fetching.look()
        # The same list may lie in several places; where it came from is what people know.
        return [*{one.fingerprint: one for one in found}.values()], before

    def _of(self, source: Path | str, key: str, problems: list[Problem]) -> list[RevocationList]:
        if isinstance(source, Path):
            return self._lists(lambda: read_trusted(source, LIMIT, key=key), str(source), problems, key)
        data, problem = self._fetching.of(source)
        if problem is not None:
            problems.append(problem)
        return [] if data is None else self._lists(lambda: data, source, problems, key)

    def _lists(
        self, read: Callable[[], bytes], source: str, problems: list[Problem] | None, key: str = ""
    ) -> list[RevocationList]:
        authorities = self._sources.settings.credentials.authorities
        try:
            data = read()
            known = self._read.get((data, authorities))
            if known is not None:
                return known
            lists = read_lists(data, source, authorities, now=time.time(), key=key)
        except InvalidInput as invalid:
            if problems is not None:
                problems.extend(invalid.problems)
            return []
        self._read[data, authorities] = lists
        if len(self._read) > _READ_AGAIN:
            del self._read[next(iter(self._read))]
        return lists

    def _older(self, lists: Iterable[RevocationList], revocations: Revocations) -> None:
        """Tell of those that go back behind what is in force."""
        stored = str(self._folder)
        for one in lists:
            known = revocations.in_force.get(one.issuer)
            if known is not None and one.order < known.order and not one.source.startswith(stored):
                message = f"is older than what is in force ({known}): it is passed over"
                remedy = "put the authority's newest list there"
                self.problems += (Problem(one.source, "", f"list {one.number}", message, remedy),)

    # What outlives the service.

    @property
    def _folder(self) -> Path:
        return self._sources.config.state / _FOLDER

    def _stored(self) -> list[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if path.name.endswith(_IN_FORCE))
        except OSError:
            return []

    def keep(self) -> None:
        """Write down what is in force and what is held, where that changed."""
        revocations = self._loop.mesh.state.revocations
        wanted = {f"{issuer}{_IN_FORCE}": one for issuer, one in revocations.in_force.items()}
        wanted |= {f"{issuer}{_HELD}": one for issuer, one in revocations.held.items()}
        changes = [
            Change(path=self._folder / name, content=one.der)
            for name, one in wanted.items()
            if self._kept.get(name) != one.fingerprint
        ]
        gone = [path for path in self._stored() if path.name not in wanted]
        changes += [Change(path=path, content=None) for path in gone]
        if not changes:
            return
        try:
            for folder in (self._folder.parent, self._folder):
                make_folder(folder, 0o700)
            write_whole(changes)
        except NotWritten as error:
            message = f"revocation lists do not outlive the service: {error}"
            self._unkept = Problem(str(self._folder), "state", "", message, "see to that folder")
        else:
            self._unkept = None
            self._kept = {name: one.fingerprint for name, one in wanted.items()}

    @property
    def unkept(self) -> tuple[Problem, ...]:
        """Why the lists in force would not outlive the service."""
        return (self._unkept,) if self._unkept is not None else ()
