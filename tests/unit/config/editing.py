"""Changes of peers.d in one call each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swanmesh.config.edit import PeerEditor, Written
from swanmesh.core.model import Peer
from swanmesh.core.peers.description import check_name, parse_peer


def write_peer(directory: Path, name: object, addresses: object, policy: object = None) -> Written:
    peer = parse_peer(name, addresses, policy, source=str(directory))
    return write_peers(directory, [peer])[0]


def write_peers(directory: Path, peers: Sequence[Peer]) -> list[Written]:
    with PeerEditor(directory, create=True) as editor:
        return editor.write(peers)


def remove_peers(directory: Path, names: Sequence[str]) -> list[Path]:
    with PeerEditor(directory) as editor:
        return editor.remove([check_name(name) for name in names])
