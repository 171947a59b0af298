"""The files of `peers.d` and of `blocks.d`: one peer, or one block of addresses, a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from swanmesh.config.directory import Directory, Entry, read_entry
from swanmesh.config.documents import unknown_keys
from swanmesh.core.model import Block, InvalidInput, Peer, Problem
from swanmesh.core.peers.blocks import parse_block
from swanmesh.core.peers.description import parse_peer

E = TypeVar("E", bound=Entry)

_PEER = ("name", "addresses", "policy", "exempt")
_BLOCK = ("cidr", "policy", "except", "wide")


def read_peer(path: Path) -> Peer:
    """The peer that one file describes. Raises as `read_entry` does."""
    return read_entry(path, peer_from_document)


def peer_from_document(document: object, source: str) -> Peer:
    """The peer that a decoded document describes. Raises InvalidInput with every problem found."""
    remedy = "give `name:` and `addresses:`"
    return _entry(document, source, "peer", remedy, _PEER, lambda *said: parse_peer(*said, source=source))


def block_from_document(document: object, source: str) -> Block:
    """The block that a decoded document describes, which has its file's name. Raises likewise."""
    remedy, name = "give `cidr:`, such as 203.0.113.0/24", Path(source).stem
    return _entry(
        *(document, source, "block", remedy, _BLOCK),
        lambda *said: parse_block(name, *said, source=source),
    )


def _entry(
    document: object,
    source: str,
    what: str,
    remedy: str,
    keys: Sequence[str],
    parse: Callable[..., E],
) -> E:
    """`parse` gets what is said under each of `keys`."""
    if not isinstance(document, dict):
        message = "is empty" if document is None else "must be a mapping"
        raise InvalidInput(Problem(source, "", "", message, remedy))
    problems = unknown_keys(document, keys, what, source)
    try:
        entry = parse(*(document.get(key) for key in keys))
    except InvalidInput as invalid:
        raise InvalidInput(*problems, *invalid.problems) from None
    if problems:
        raise InvalidInput(*problems)
    return entry


def peer_directory(path: Path) -> Directory[Peer]:
    return Directory(path, peer_from_document, "peer")


def block_directory(path: Path) -> Directory[Block]:
    return Directory(path, block_from_document, "block", optional=True)
