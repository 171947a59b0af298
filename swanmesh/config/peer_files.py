"""The files of `peers.d`: one peer a file."""

from __future__ import annotations

from pathlib import Path

from swanmesh.config.directory import Directory, read_entry
from swanmesh.config.documents import unknown_keys
from swanmesh.core.model import InvalidInput, Peer, Problem
from swanmesh.core.peers.description import parse_peer

_KEYS = ("name", "addresses", "policy", "exempt")


def read_peer(path: Path) -> Peer:
    """The peer that one file describes. Raises as `read_entry` does."""
    return read_entry(path, peer_from_document)


def peer_from_document(document: object, source: str) -> Peer:
    """The peer that a decoded document describes. Raises InvalidInput with every problem found."""
    if not isinstance(document, dict):
        message = "is empty" if document is None else "must be a mapping"
        raise InvalidInput(Problem(source, "", "", message, "give `name:` and `addresses:`"))
    problems = unknown_keys(document, _KEYS, "peer", source)
    try:
        peer = parse_peer(
            document.get("name"),
            document.get("addresses"),
            document.get("policy"),
            document.get("exempt"),
            source=source,
        )
    except InvalidInput as invalid:
        raise InvalidInput(*problems, *invalid.problems) from None
    if problems:
        raise InvalidInput(*problems)
    return peer


def peer_directory(path: Path) -> Directory[Peer]:
    return Directory(path, peer_from_document, "peer")
