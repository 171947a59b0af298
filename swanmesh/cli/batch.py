"""Peers as the command line gives them: one by its words, or many from a file."""

from __future__ import annotations

import sys
from pathlib import Path

from swanmesh.config.documents import parse_document
from swanmesh.config.entry_files import peer_from_document
from swanmesh.core.model import InvalidInput, Peer, Problem, shown
from swanmesh.core.peers.description import parse_peer
from swanmesh.files.read import read_bytes

COMMAND_LINE = "the command line"
_LIMIT = 64 * 1024 * 1024
"""Bytes of a list: a few hundred thousand peers."""


def from_words(name: str, addresses: tuple[str, ...], policy: str | None) -> list[Peer]:
    """The peer that NAME ADDRESS… describe. Raises InvalidInput with every problem."""
    return [parse_peer(name, list(addresses), policy, source=COMMAND_LINE)]


def from_list(path: str, policy: str | None) -> list[Peer]:
    """The peers in a file, or on standard input for `-`. Raises InvalidInput with every problem in it.

    A text that begins with `[`, `{` or `- ` is a YAML or JSON list of what a peer's file holds; any other is
    lines of NAME ADDRESS…, with `#` before what is to be passed over.
    """
    source = "standard input" if path == "-" else path
    data = sys.stdin.buffer.read(_LIMIT + 1) if path == "-" else read_bytes(Path(path), _LIMIT)
    if len(data) > _LIMIT:
        message = f"is larger than {_LIMIT // 2**20} MiB"
        raise InvalidInput(Problem(source, "", "", message, "give the peers in several parts"))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(Problem(source, "", "", "is not UTF-8 text", "write it in UTF-8")) from None
    start = _start(text)
    listed = start.startswith(("[", "{", "- ", "-\n"))
    peers = _documents(text, source, policy) if listed else _lines(text, source, policy)
    if not peers:
        raise InvalidInput(Problem(source, "", "", "holds no peer", "give lines of NAME ADDRESS…"))
    return peers


def _start(text: str) -> str:
    """The text from its first line on that says something."""
    for line in text.splitlines(keepends=True):
        stripped = line.strip()
        if stripped and not stripped.startswith("#") and stripped != "---":
            return line.lstrip()
    return ""


def _lines(text: str, source: str, policy: str | None) -> list[Peer]:
    peers: list[Peer] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            peers.append(parse_peer(words[0], words[1:], policy, source=f"{source}, line {number}"))
        except InvalidInput as invalid:
            problems.extend(invalid.problems)
    if problems:
        raise InvalidInput(*problems)
    return peers


def _documents(text: str, source: str, policy: str | None) -> list[Peer]:
    items = parse_document(text, source)
    if not isinstance(items, list):
        remedy = "put it into a list, or give lines of NAME ADDRESS…"
        raise InvalidInput(Problem(source, "", shown(items), "is no list of peers", remedy))
    peers: list[Peer] = []
    problems: list[Problem] = []
    for number, item in enumerate(items):
        given = {"policy": policy, **item} if policy is not None and isinstance(item, dict) else item
        try:
            peers.append(peer_from_document(given, f"{source}, [{number}]"))
        except InvalidInput as invalid:
            problems.extend(invalid.problems)
    if problems:
        raise InvalidInput(*problems)
    return peers
