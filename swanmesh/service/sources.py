"""This host's files as the core gets them: settings and peers, the last good state of each kept in force."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swanmesh.config.peer_files import PeerDirectory, Scan, is_peer_file
from swanmesh.config.settings import Config, load_config
from swanmesh.core.model import InvalidInput, Peer, Problem, Settings
from swanmesh.pki.certificates import load_credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a reading of files brought."""

    settings: Settings | None = None
    """New settings; None if they are as before."""
    put: tuple[Peer, ...] = ()
    drop: tuple[str, ...] = ()
    """Files that are gone."""


class Sources:
    """`swanmesh.yaml`, the credentials it names and `peers.d`.

    `config`, `settings` and `peers` are what is in force; `problems` what is kept out of it, and why.
    """

    def __init__(self, path: Path) -> None:
        """Read everything. Raises InvalidInput if configuration or credentials are not valid: there is
        no last good state yet. A peer file that is not valid is a problem and no more."""
        self._path = path
        self.config = load_config(path)
        self.settings = _settings(self.config)
        self._directory = PeerDirectory(self.config.peers)
        self._in_force: dict[Path, Peer] = {}
        self._config_problems: tuple[Problem, ...] = ()
        self._scan = self._directory.scan()
        self._take(self._scan)

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(self._in_force.values())

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self._config_problems + self._scan.problems

    @property
    def hold(self) -> str:
        """Why what charon holds of unknown peers must be left alone; empty if all files could be read.

        A file that never could be read may describe any of them."""
        if not self._scan.complete:
            return f"{self._directory.path} cannot be read"
        unknown = sorted(path for path in self._scan.unreadable if path not in self._in_force)
        return f"{unknown[0]} cannot be read, and may describe this peer" if unknown else ""

    def read(self, paths: Iterable[Path] | None = None) -> Update:
        """Read these files again, or all. Work is proportional to `paths` where only peer files are named."""
        wanted = None if paths is None else {path.absolute() for path in paths}
        if wanted is not None and all(p.parent == self.config.peers and is_peer_file(p) for p in wanted):
            self._scan = self._directory.look(wanted)
            return self._take(self._scan, wanted)
        settings = self._read_settings()
        if self._directory.path != self.config.peers:
            self._directory = PeerDirectory(self.config.peers)
        self._scan = self._directory.scan()
        update = self._take(self._scan)
        return Update(settings=settings, put=update.put, drop=update.drop)

    def _read_settings(self) -> Settings | None:
        try:
            config = load_config(self._path)
            settings = _settings(config)
        except InvalidInput as invalid:
            self._config_problems = invalid.problems
            return None
        self._config_problems = tuple(_needs_restart(self.config, config))
        changed = settings != self.settings
        self.config, self.settings = config, settings
        return settings if changed else None

    def _take(self, scan: Scan, paths: Iterable[Path] | None = None) -> Update:
        concerned = (scan.peers.keys() | self._in_force.keys()) if paths is None else set(paths)
        put, drop = [], []
        for path in concerned:
            peer, known = scan.peers.get(path), self._in_force.get(path)
            if peer is not None and peer != known:
                self._in_force[path] = peer
                put.append(peer)
            elif peer is None and known is not None and path not in scan.unreadable and scan.complete:
                del self._in_force[path]
                drop.append(str(path))
        return Update(put=tuple(put), drop=tuple(drop))


def _settings(config: Config) -> Settings:
    """Raises InvalidInput if the credentials will not do."""
    credentials = load_credentials(
        config.certificate,
        config.private_key,
        config.authorities,
        name=config.host.name,
        now=time.time(),
    )
    return Settings(
        host=config.host,
        credentials=credentials,
        policy=config.policy,
        connection=config.connection,
        initiation=config.initiation,
    )


def _needs_restart(old: Config, new: Config) -> Iterable[Problem]:
    """Keys that the running service cannot follow; restarting it disturbs no association."""
    for key, before, after in (
        ("charon.socket", old.charon_socket, new.charon_socket),
        ("control.socket", old.control_socket, new.control_socket),
        ("control.group", old.control_group, new.control_group),
        ("log.format", old.log_format, new.log_format),
    ):
        if before != after:
            message = f"changed from {before}, and takes effect when the service is restarted"
            yield Problem(str(new.path), key, str(after), message, "run: systemctl restart swanmesh")
