"""Writing `peers.d`: where each peer's file stands, what it says, and one writer at a time."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from swanmesh.config.directory import SUFFIX, is_entry_file
from swanmesh.config.documents import PEER_LIMIT
from swanmesh.config.entry_files import read_peer
from swanmesh.core.model import Address, InvalidInput, Peer, Problem
from swanmesh.files.lock import open_locked
from swanmesh.files.read import read_bytes
from swanmesh.files.write import Change, make_folder, not_written, write_whole

_NAME_LIMIT = 200
"""Characters of a peer's name that go into its file's name; the file system's limit is 255 bytes."""
_WORD = re.compile(rb"[a-z0-9.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of one peer's file."""

    peer: Peer
    path: Path
    created: bool
    changed: bool
    """False if the file said the same already; it was not touched then."""
    previous: bytes | None
    """What the file held before, for `PeerEditor.restore`; None if there was none."""
    dropped: tuple[Address, ...] = ()
    """Addresses that the peer had before and has no more."""


class PeerEditor:
    """`peers.d` under an exclusive lock (`open_locked`), from entering the context to leaving it."""

    def __init__(self, directory: Path, *, create: bool = False) -> None:
        """`create` makes the directory if only it is missing."""
        self.directory = directory
        self._create = create
        self._fd = -1

    def __enter__(self) -> PeerEditor:
        if self._create:
            make_folder(self.directory, 0o755)
        self._fd = open_locked(self.directory)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def write(self, peers: Sequence[Peer]) -> list[Written]:
        """Write these peers, all or none. A policy of None keeps the one that the file states.

        A peer that stands in a file of another name is updated there; comments in a changed file are lost.
        Raises InvalidInput if a name stands twice, or what is in the way holds another peer or is a symbolic
        link, and NotWritten.
        """
        places = self._places([peer.name for peer in peers])
        plans: list[tuple[Written, bytes]] = []
        for peer in peers:
            path = places[peer.name]
            previous = read_bytes(path, PEER_LIMIT) if os.path.lexists(path) else None
            old = read_peer(path) if previous is not None else None
            policy = peer.policy if peer.policy is not None or old is None else old.policy
            exempt = peer.exempt if peer.exempt is not None or old is None else old.exempt
            new = Peer(
                name=peer.name, addresses=peer.addresses, policy=policy, exempt=exempt, source=str(path)
            )
            if old != new and path.is_symlink():
                message, remedy = "is a symbolic link", f"change {path.resolve()}, or put a file in its place"
                raise InvalidInput(Problem(str(path), "", "", message, remedy))
            written = Written(
                peer=new,
                path=path,
                created=old is None,
                changed=old != new,
                previous=previous,
                dropped=tuple(a for a in old.addresses if a not in new.addresses) if old is not None else (),
            )
            plans.append((written, peer_text(new)))
        write_whole([Change(path=written.path, content=text) for written, text in plans if written.changed])
        return [written for written, _ in plans]

    def remove(self, names: Sequence[str]) -> list[Path]:
        """Remove these peers' files, all or none. Raises InvalidInput if one has none, and NotWritten."""
        places = self._places(names)
        missing = [
            Problem(str(path), "name", name, "there is no such peer", "look at `swanmesh status`")
            for name, path in places.items()
            if not os.path.lexists(path)
        ]
        if missing:
            raise InvalidInput(*missing)
        write_whole([Change(path=path, content=None) for path in places.values()])
        return list(places.values())

    def restore(self, written: Iterable[Written]) -> None:
        """Put back what `write` changed. Raises NotWritten."""
        write_whole([Change(path=one.path, content=one.previous) for one in written if one.changed])

    def _places(self, names: Sequence[str]) -> dict[str, Path]:
        """The file of each name: where it stands already, or else where it belongs."""
        places: dict[str, Path] = {}
        elsewhere: list[str] = []
        for name in names:
            if name in places:
                problem = Problem(
                    str(self.directory), "name", name, "is given twice", "leave one of the two out"
                )
                raise InvalidInput(problem)
            path = places[name] = self.directory / file_name(name)
            if not os.path.lexists(path):
                elsewhere.append(name)
                continue
            holds = read_peer(path).name
            if holds != name:
                message, remedy = f"holds the peer {holds}", f"rename it to {file_name(holds)}"
                raise InvalidInput(Problem(str(path), "name", name, message, remedy))
        places.update(self._search(elsewhere))
        return places

    def _search(self, names: Sequence[str]) -> dict[str, Path]:
        """Files under another name that hold one of these peers. Only what contains a name is parsed."""
        found: dict[str, Path] = {}
        wanted = {name.encode() for name in names}
        for path in self._peer_files() if wanted else ():
            try:
                data = read_bytes(path, PEER_LIMIT).lower()
                # A backslash can hide any text within double quotes.
                if wanted.isdisjoint(_WORD.findall(data)) and b"\\" not in data:
                    continue
                holds = read_peer(path).name
            except (InvalidInput, FileNotFoundError):
                continue
            if holds.encode() in wanted:
                found[holds] = path
        return found

    def _peer_files(self) -> list[Path]:
        try:
            with os.scandir(self._fd) as entries:
                return [path for entry in entries if is_entry_file(path := self.directory / entry.name)]
        except OSError as error:
            raise not_written(self.directory, error) from None


def file_name(name: str) -> str:
    """The file of a checked name. One too long for a file name is cut, and told apart by its digest."""
    if len(name) <= _NAME_LIMIT:
        return name + SUFFIX
    return f"{name[:_NAME_LIMIT]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}{SUFFIX}"


def peer_text(peer: Peer) -> bytes:
    """The peer as its file says it."""
    document: dict[str, object] = {"name": peer.name, "addresses": [str(a) for a in peer.addresses]}
    if peer.policy is not None:
        document["policy"] = peer.policy.value
    if peer.exempt is not None:
        document["exempt"] = [str(each) for each in peer.exempt]
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None).encode()
