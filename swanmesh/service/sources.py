"""This host's files as the core gets them: the settings, of which the last good ones stay in force, and what
the files of peers and blocks say. Which of these are in force is the business of the core's `PeerRegistry`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from swanmesh.config.directory import Scan
from swanmesh.config.entry_files import block_directory, peer_directory
from swanmesh.config.override import Overrides, TrialRecord, forget_trial, read_overrides
from swanmesh.config.sections import Config
from swanmesh.config.settings import load_config, missing_addresses
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Address, Credentials, InvalidInput, Problem, Settings
from swanmesh.core.peers.registry import Entry, PeerRegistry
from swanmesh.core.reasons import FILES_IN_DOUBT, NONE, Reason
from swanmesh.core.settings.override import HOST
from swanmesh.machine.addresses import own_addresses
from swanmesh.machine.surroundings import needed
from swanmesh.pki.certificates import load_credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a reading of files brought."""

    settings: Settings | None = None
    """New settings; None if they are as before."""
    put: tuple[Entry, ...] = ()
    """New versions of files."""
    drop: tuple[str, ...] = ()
    """Files that were removed on purpose."""
    gone: tuple[str, ...] = ()
    """Files that are not there any more."""


class Source(Protocol):
    """Where peers or blocks are told of. It answers with all that it tells, and whether that is complete."""

    path: Path

    def scan(self) -> Scan[Entry]:
        """Look at everything."""
        ...

    def look(self, paths: Iterable[Path]) -> Scan[Entry]:
        """Look at these files, where they are its own."""
        ...


def _all_sources(config: Config) -> tuple[Source, ...]:
    return (peer_directory(config.peers), block_directory(config.blocks))


class Sources:
    """`swanmesh.yaml`, the credentials it names, and who tells of peers and blocks.

    `config` and `settings` are what is in force; `problems` what is kept out of it, and why.
    """

    def __init__(self, path: Path, *, addresses: Callable[[], frozenset[Address]] = own_addresses) -> None:
        """Read configuration and credentials. Raises InvalidInput if they are not valid: there is no last
        good state yet. `addresses` tells which addresses this machine has."""
        self._path = path
        self._addresses = addresses
        self._present: frozenset[Address] | None = None
        self.needed: dict[Address, str] = {}
        """Addresses that this machine cannot do without, each with what it is."""
        self.config = load_config(path)
        self.settings = _settings(self.config)
        self.overrides = Overrides()
        """What holds instead of these files for a while."""
        self._override_problems: tuple[Problem, ...] = ()
        self._sources = _all_sources(self.config)
        self._config_problems: tuple[Problem, ...] = ()
        self._scans = [source.scan() for source in self._sources]
        self.settings = self._overridden(self.settings)
        self.look_at_addresses()

    @property
    def folders(self) -> list[Path]:
        """Where the files of peers and blocks lie."""
        return [source.path for source in self._sources]

    @property
    def problems(self) -> tuple[Problem, ...]:
        missing = self._missing(self.config)
        told = [problem for scan in self._scans for problem in scan.problems]
        return (*self._config_problems, *self._override_problems, *missing, *told)

    def doubt(self, registry: PeerRegistry) -> Reason:
        """Why the files may not tell of all peers, or the settings not of all that works; empty if they do.

        A file of which no version is in force may describe anybody."""
        unknown = sorted(source for source in self._unreadable if source not in registry.in_force)
        partial = [s.path for s, scan in zip(self._sources, self._scans, strict=True) if not scan.complete]
        unread = [file for scan in self._scans for file in scan.unread]
        if partial:
            words = f"{partial[0]} cannot be read"
        elif unread:
            words = f"{unread[0]} is not read, and may describe this peer"
        elif unknown:
            words = f"{unknown[0]} cannot be read, and may describe this peer"
        elif missing := self._missing(self.config):
            words = str(missing[0])
        else:
            return NONE
        return Reason(FILES_IN_DOUBT, words)

    def look_at_addresses(self) -> bool:
        """Ask the machine for its addresses. Returns whether that changes what is wrong with the settings."""
        before = self._present
        try:
            self._present = self._addresses()
        except OSError:
            self._present = None
        wanted = set(self.config.host.addresses)
        more = (self._present or frozenset()) - wanted
        self.needed = needed() | dict.fromkeys(more, "an address of this host that is not in host.addresses")
        changed = (before or frozenset()) ^ (self._present or frozenset())
        return bool(changed & wanted) or (bool(changed) and bool(self._config_problems))

    def first(self, registry: PeerRegistry) -> Update:
        """What was read when this was made."""
        return self._update(None, registry.sources, self._entries(), registry, removed=False)

    def read(self, paths: Iterable[Path] | None, registry: PeerRegistry, *, removed: bool = False) -> Update:
        """Read these files again, or all; what `registry` does not know is new. `removed`: those of `paths`
        that are gone were removed on purpose. Work is proportional to `paths` where only peers' files are
        named, or revocation lists, of which nothing is read here."""
        mine = self.config.credentials
        lists = {*mine.crls} - {mine.certificate, mine.private_key, *mine.authorities}
        wanted = None if paths is None else {path.absolute() for path in paths if path not in lists}
        if wanted is not None and all(path.parent in self.folders for path in wanted):
            self._scans = [source.look(wanted) for source in self._sources]
            files = [str(path) for path in wanted]
            found = [entry for file in files if (entry := self._entry(file)) is not None]
            return self._update(None, files, found, registry, removed=removed)
        before, self.settings = self.settings, self._read_settings()
        sources = _all_sources(self.config)
        if [source.path for source in sources] != self.folders:
            self._sources = sources
        self._scans = [source.scan() for source in self._sources]
        self.settings = self._overridden(self.settings)
        settings = self.settings if self.settings != before else None
        return self._update(settings, registry.sources, self._entries(), registry, removed=removed)

    def _entry(self, file: str) -> Entry | None:
        return next((scan.entries[file] for scan in self._scans if file in scan.entries), None)

    def _entries(self) -> Iterator[Entry]:
        for scan in self._scans:
            yield from scan.entries.values()

    @property
    def _unreadable(self) -> frozenset[str]:
        return frozenset().union(*(scan.unreadable for scan in self._scans))

    @property
    def _complete(self) -> bool:
        return all(scan.complete for scan in self._scans)

    def _update(
        self,
        settings: Settings | None,
        sources: Iterable[str],
        found: Iterable[Entry],
        registry: PeerRegistry,
        *,
        removed: bool,
    ) -> Update:
        put = tuple(peer for peer in found if not registry.knows(peer))
        gone = tuple(sorted(self._gone(sources)))
        if removed:
            return Update(settings=settings, put=put, drop=gone)
        return Update(settings=settings, put=put, gone=gone)

    def apply(self, mesh: Mesh, update: Update, now: float) -> frozenset[str]:
        """Give the core what was read. Returns the names of the peers that changed."""
        if update.settings is not None:
            mesh.configure(update.settings, now)
        # Twice: what was read may bring a doubt or end it, and nobody must be removed in between.
        mesh.hold(self.doubt(mesh.state.registry))
        broken = self._unreadable
        names = mesh.update_peers(update.put, update.drop, now, gone=update.gone, broken=broken)
        mesh.hold(self.doubt(mesh.state.registry))
        return names

    def _gone(self, sources: Iterable[str]) -> Iterable[str]:
        if self._complete:
            unreadable = self._unreadable
            for source in sources:
                if self._entry(source) is None and source not in unreadable:
                    yield source

    def _read_settings(self) -> Settings:
        """The last good ones where the file has mistakes."""
        try:
            config = load_config(self._path)
            self._check_addresses(config)
            settings = _settings(config, self.settings.credentials)
        except InvalidInput as invalid:
            self._config_problems = invalid.problems
            return self.settings
        self._config_problems = tuple(_needs_restart(self.config, config))
        self.config = config
        return settings

    def _overridden(self, settings: Settings) -> Settings:
        """These settings, with what holds instead of the files for a while. That goes on as it is while what
        is recorded of it cannot be read."""
        try:
            found, self._override_problems = read_overrides(self.config.state), ()
        except InvalidInput as invalid:
            found, self._override_problems = self.overrides, invalid.problems
        trial = found.trial
        if trial is not None and not (trial.left() and self._stands(trial)):
            forget_trial(self.config.state, trial)
            found = replace(found, trial=None)
        self.overrides = found
        return replace(settings, override=found.in_force())

    def _stands(self, trial: TrialRecord) -> bool:
        """Whether anything on trial still has the policy in its file that it had before."""
        if HOST in trial.before and trial.before[HOST] == self.config.policy:
            return True
        return not self._complete or any(
            entry.name in trial.before and trial.before[entry.name] == entry.policy
            for entry in self._entries()
        )

    def _check_addresses(self, config: Config) -> None:
        """Raises InvalidInput for a change that would end what works for an address that no interface has."""
        old, new = set(self.config.host.addresses), set(config.host.addresses)
        ended = (old - new) & (self._present or frozenset())
        lost = [problem for problem in self._missing(config) if problem.value not in map(str, old)]
        if ended and lost:
            raise InvalidInput(*(_held_back(problem, ended) for problem in lost))

    def _missing(self, config: Config) -> tuple[Problem, ...]:
        return () if self._present is None else missing_addresses(config, self._present)


def _held_back(problem: Problem, ended: Iterable[Address]) -> Problem:
    works = ", ".join(sorted(map(str, ended)))
    message = f"{problem.message}, and the change would end what works for {works}: nothing of it is in force"
    return Problem(problem.file, problem.key, problem.value, message, problem.remedy)


def _settings(config: Config, held: Credentials | None = None) -> Settings:
    """Raises InvalidInput if the credentials will not do. `held`: those in force."""
    mine, wall = config.credentials, time.time()
    load = partial(
        load_credentials,
        mine.certificate,
        mine.private_key,
        mine.authorities,
        name=config.host.name,
        now=wall,
    )
    try:
        return config.settings(load())
    except InvalidInput:
        # An end is no mistake in a file. A host that comes back after its certificate's end, or with a wrong
        # clock, must say so, renew and heal; its peers refuse it all the same. But what still holds is not
        # given up for what does not.
        found = load(dates=False)
        if held is not None and held.holds(wall) and not found.holds(wall):
            raise
        return config.settings(found)


def _needs_restart(old: Config, new: Config) -> Iterable[Problem]:
    """Keys that the running service cannot follow; restarting it disturbs no association."""
    for key, before, after in (
        ("charon.socket", old.charon.socket, new.charon.socket),
        ("control.socket", old.control.socket, new.control.socket),
        ("control.group", old.control.group, new.control.group),
        ("log.format", old.log.format, new.log.format),
    ):
        if before != after:
            message = f"changed from {before}, and takes effect when the service is restarted"
            yield Problem(str(new.path), key, str(after), message, "run: systemctl restart swanmesh")
