"""Writing `blocks.d`: one block at a time, whole or not at all, and nothing that contradicts the others."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from swanmesh.config.directory import SUFFIX
from swanmesh.config.documents import PEER_LIMIT
from swanmesh.config.entry_files import block_directory
from swanmesh.core.model import Block, InvalidInput, Problem
from swanmesh.files.lock import locked
from swanmesh.files.read import read_bytes
from swanmesh.files.write import Change, make_folder, write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBlock:
    """What became of a block's file."""

    block: Block
    path: Path
    previous: bytes | None
    """What the file held before; None if there was none."""
    changed: bool
    """False if it said the same already; it was not touched then."""

    @property
    def result(self) -> str:
        return "unchanged" if not self.changed else "added" if self.previous is None else "updated"


def write_block(directory: Path, block: Block, *, wide: bool) -> WrittenBlock:
    """Write the block. `wide`: it is meant to be as wide as it is. Raises InvalidInput and NotWritten."""
    make_folder(directory, 0o755)
    path = directory / f"{block.name}{SUFFIX}"
    with locked(directory):
        others = block_directory(directory).scan().entries.values()
        for other in others:
            if other.cidr == block.cidr and other.name != block.name:
                message = f"the block stands in {other.source} already"
                remedy = f"change that one (--name {other.name}), or remove it first"
                raise InvalidInput(Problem(str(path), "cidr", str(block.cidr), message, remedy))
        previous = read_bytes(path, PEER_LIMIT) if os.path.lexists(path) else None
        known = next((other for other in others if other.name == block.name), None)
        new = replace(block, source=str(path))
        changed = previous is None or known != new
        if changed:
            write_whole([Change(path=path, content=block_text(new, wide=wide))])
    return WrittenBlock(block=new, path=path, previous=previous, changed=changed)


def restore_block(written: WrittenBlock) -> None:
    """Put back what `write_block` changed. Raises NotWritten."""
    with locked(written.path.parent):
        write_whole([Change(path=written.path, content=written.previous)])


def remove_block(directory: Path, name: str) -> Path:
    """Remove the block's file. Raises InvalidInput if it has none, and NotWritten."""
    path = directory / f"{name.lower()}{SUFFIX}"
    with locked(directory):
        if not os.path.lexists(path):
            known = ", ".join(
                sorted(block.name for block in block_directory(directory).scan().entries.values())
            )
            remedy = f"known: {known}" if known else "there are none"
            raise InvalidInput(Problem(str(path), "", name, "there is no such block", remedy))
        write_whole([Change(path=path, content=None)])
    return path


def block_text(block: Block, *, wide: bool = False) -> bytes:
    """The block as its file says it."""
    document: dict[str, object] = {"cidr": str(block.cidr)}
    if block.policy is not None:
        document["policy"] = block.policy.value
    if block.exceptions:
        document["except"] = [
            str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
            for network in block.exceptions
        ]
    if wide:
        document["wide"] = True
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None).encode()
