"""Adding peers: all or none, nothing that contradicts what is there, and taken back if it does not do.

Reading and parsing thousands of files for one new peer would take seconds. So every file is searched for the
names and addresses in question, and only those that hold one are parsed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from swanmesh.config.directory import is_entry_file
from swanmesh.config.documents import PEER_LIMIT
from swanmesh.config.edit import PeerEditor, Written, file_name
from swanmesh.config.entry_files import read_peer
from swanmesh.core.model import Host, InvalidInput, Peer, Problem
from swanmesh.core.peers.registry import PeerRegistry
from swanmesh.files.read import read_bytes

_WORDS = re.compile(rb"[0-9a-z.:-]+")


@contextlib.contextmanager
def adding(directory: Path, host: Host, peers: Sequence[Peer]) -> Iterator[list[Written]]:
    """Write the peers' files, and let nobody else write until the block ends. If it raises, every file is put
    back as it was.

    Raises InvalidInput, with every contradiction, and NotWritten; nothing is written then.
    """
    with PeerEditor(directory, create=True) as editor:
        if problems := _conflicts(directory, host, peers):
            raise InvalidInput(*problems)
        written = editor.write(peers)
        try:
            yield written
        except BaseException:
            editor.restore(written)
            raise


def _conflicts(directory: Path, host: Host, new: Sequence[Peer]) -> tuple[Problem, ...]:
    """What in `new` contradicts the other files of `directory`, this host or each other: one problem a peer,
    naming both files."""
    known = list(_claimants(directory, new))
    places = {peer.name: peer.source for peer in known}
    registry = PeerRegistry(host)
    registry.update(known)
    registry.update(
        Peer(
            name=peer.name,
            addresses=peer.addresses,
            policy=peer.policy,
            source=places.get(peer.name, str(directory / file_name(peer.name))),
        )
        for peer in new
    )
    names = {peer.name for peer in new}
    sources = {places.get(name, str(directory / file_name(name))) for name in names}
    return tuple(problem for problem in registry.problems if problem.file in sources)


def _claimants(directory: Path, new: Sequence[Peer]) -> Iterator[Peer]:
    """The peers in files that hold one of the names or addresses of `new`."""
    addresses = {address for peer in new for address in peer.addresses}
    texts = {str(each).encode() for each in (*addresses, *(peer.name for peer in new))}
    packed = {address.packed for address in addresses if isinstance(address, ipaddress.IPv6Address)}
    for path in _peer_files(directory):
        try:
            if not _may_hold(read_bytes(path, PEER_LIMIT).lower(), texts, packed):
                continue
            yield read_peer(path)
        except (InvalidInput, FileNotFoundError):
            # Says nothing valid: it claims nothing. `check` and `status` tell about it.
            continue


def _peer_files(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [path for entry in entries if is_entry_file(path := directory / entry.name)]
    except OSError:
        # Not made yet, or unreadable: writing into it says so.
        return []


def _may_hold(data: bytes, texts: set[bytes], packed: set[bytes]) -> bool:
    words = _WORDS.findall(data)
    if not texts.isdisjoint(words) or b"\\" in data:
        # A backslash can hide any text within double quotes.
        return True
    # An IPv6 address has many spellings.
    return bool(packed) and any(word.count(b":") > 1 and _packed(word) in packed for word in words)


def _packed(word: bytes) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6, word.decode("ascii"))
    except OSError:
        return b""
