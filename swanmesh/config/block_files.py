"""The files of `blocks.d`: one block of addresses a file, which has the block's name."""

from __future__ import annotations

from pathlib import Path

from swanmesh.config.directory import Directory
from swanmesh.config.documents import unknown_keys
from swanmesh.core.model import Block, InvalidInput, Problem
from swanmesh.core.peers.blocks import parse_block

_KEYS = ("cidr", "policy", "except", "wide")


def block_from_document(document: object, source: str) -> Block:
    """The block that a decoded document describes. Raises InvalidInput with every problem found."""
    if not isinstance(document, dict):
        message = "is empty" if document is None else "must be a mapping"
        raise InvalidInput(Problem(source, "", "", message, "give `cidr:`, such as 203.0.113.0/24"))
    problems = unknown_keys(document, _KEYS, "block", source)
    try:
        block = parse_block(Path(source).stem, *(document.get(key) for key in _KEYS), source=source)
    except InvalidInput as invalid:
        raise InvalidInput(*problems, *invalid.problems) from None
    if problems:
        raise InvalidInput(*problems)
    return block


def block_directory(path: Path) -> Directory[Block]:
    return Directory(path, block_from_document, "block", optional=True)
