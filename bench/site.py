"""One host with many peers, as swanmesh's files and as a swanctl.conf of the very same connections."""

from __future__ import annotations

import ipaddress
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from swanmesh.charon.rendering import Value, render
from swanmesh.core.connections import Connection
from swanmesh.core.desired import desired, neighbour_discovery
from swanmesh.core.model import Peer
from swanmesh.core.pairs.initiation import initiates
from swanmesh.pki.authority import Authority
from swanmesh.service.sources import Sources

HOST = "bench.mesh.example"
ADDRESS = "2001:db8::1"
"""IPv6, since the addresses set aside for documentation are too few in IPv4 for thousands of peers."""
_DAY = 86400.0


@dataclass
class Site:
    """The files of one host in one folder, and all of its peers."""

    folder: Path
    peers: list[Peer]
    spare: list[Peer] = field(default_factory=list)
    """Peers that this host would initiate to, not in its files yet."""

    @property
    def config(self) -> Path:
        return self.folder / "swanmesh.yaml"

    @property
    def peers_folder(self) -> Path:
        return self.folder / "peers.d"

    @property
    def control_socket(self) -> Path:
        return self.folder / "control.sock"

    @property
    def charon_socket(self) -> Path:
        return self.folder / "charon.vici"

    @property
    def swanctl_conf(self) -> Path:
        return self.folder / "swanctl.conf"

    def connections(self) -> list[Connection]:
        """What swanmesh loads for these files."""
        settings = Sources(self.config).settings
        found = [neighbour_discovery(settings)]
        for peer in self.peers:
            found += [connection for _, connection in desired(settings, peer).values()]
        return [connection for connection in found if connection is not None]

    def write_swanctl_conf(self) -> None:
        """The same connections for `swanctl --load-conns`."""
        body = {name_in_file(connection.name): render(connection) for connection in self.connections()}
        ca = self.folder / "pki/ca.pem"
        self.swanctl_conf.write_text("\n".join(_section("connections", body, ca)) + "\n")

    def peer_text(self, peer: Peer) -> str:
        """The peer's file, as `add-peer` writes it."""
        return yaml.safe_dump(
            {"name": peer.name, "addresses": [str(address) for address in peer.addresses]}, sort_keys=False
        )

    def put(self, peer: Peer) -> Path:
        """Put its file into peers.d, whole."""
        draft = self.peers_folder / f".{peer.name}"
        draft.write_text(self.peer_text(peer))
        path = draft.replace(self.peers_folder / f"{peer.name}.yaml")
        self.peers.append(peer)
        return path


def name_in_file(name: str) -> str:
    """A connection's name as swanctl.conf can have it: a dot would end it."""
    return name.replace(".", "-")


def build(folder: Path, count: int, *, passive: bool = False, **sections: Any) -> Site:
    """A host with `count` peers, one address each. `passive`: each of them initiates to this host, which
    gives them an hour for it. `sections` are added to swanmesh.yaml."""
    (folder / "peers.d").mkdir(parents=True)
    (folder / "hooks.d").mkdir()
    _write_credentials(folder / "pki")
    if passive:
        sections["initiation"] = {"takeover": "1h"}
    # A charon that only tells of associations has no network for them (`probe` measures it with one).
    sections.setdefault("probe", {"port": "off"})
    document = {
        "host": {"name": HOST, "addresses": [ADDRESS]},
        "credentials": {
            "certificate": "pki/host.pem",
            "private_key": "pki/host.key",
            "authorities": ["pki/ca.pem"],
        },
        "charon": {"socket": "charon.vici"},
        "control": {"socket": "control.sock"},
        "hooks": "hooks.d",
        "state": "state",
    }
    site = Site(folder, [])
    site.config.write_text(yaml.safe_dump(document | sections, sort_keys=False))
    every = _every_peer()
    wanted = (peer for peer in every if not (passive and initiates(HOST, peer.name)))
    for peer in itertools.islice(wanted, count):
        site.put(peer)
    site.spare = list(itertools.islice((peer for peer in every if initiates(HOST, peer.name)), 64))
    site.write_swanctl_conf()
    return site


def _every_peer() -> Iterator[Peer]:
    first = ipaddress.IPv6Address("2001:db8:1::")
    for number in itertools.count(1):
        yield Peer(name=f"p{number}.mesh.example", addresses=(first + number,))


def _write_credentials(folder: Path) -> None:
    authority = Authority.create(folder, "Bench CA", now=time.time())
    issued = authority.issue(HOST, [ipaddress.ip_address(ADDRESS)], now=time.time(), lifetime=90 * _DAY)
    (folder / "host.pem").write_bytes(issued.certificate)
    (folder / "host.key").touch(mode=0o600)
    (folder / "host.key").write_bytes(issued.private_key)


def _section(name: str, body: dict[str, Any], ca: Path, depth: int = 0) -> Iterator[str]:
    indent = "  " * depth
    yield f"{indent}{name} {{"
    for key, value in body.items():
        if isinstance(value, dict):
            yield from _section(key, value, ca, depth + 1)
        else:
            yield f'{indent}  {key} = "{str(ca) if key == "cacerts" else _text(value)}"'
    yield f"{indent}}}"


def _text(value: Value) -> str:
    words: Sequence[Value] = value if isinstance(value, list) else [value]
    return ", ".join(str(word) for word in words)
