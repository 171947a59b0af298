"""This host's files read without the service: for `check` and `plan --offline`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from swanmesh.config.entry_files import block_directory, peer_directory
from swanmesh.config.sections import Config
from swanmesh.config.settings import load_config, missing_addresses
from swanmesh.control.protocol import PlannedAction, PlanReply
from swanmesh.core.credentials.expiry import expiring
from swanmesh.core.credentials.revocation import Revocations, own_problems
from swanmesh.core.model import Block, Credentials, Host, InvalidInput, Peer, Problem
from swanmesh.core.pairs.agreement import uncertified
from swanmesh.core.peers.description import cut_off
from swanmesh.core.peers.registry import PeerRegistry
from swanmesh.core.segmentation import remarks
from swanmesh.core.verdict import offline
from swanmesh.files.read import read_trusted
from swanmesh.hooks.discovery import find_hooks
from swanmesh.kernel.requests import holdings
from swanmesh.kernel.segmentation import generic_cipher, segmenting
from swanmesh.machine.addresses import own_addresses
from swanmesh.machine.surroundings import needed_now
from swanmesh.pki.certificates import load_credentials
from swanmesh.pki.renewal import program_fault
from swanmesh.pki.revocation import LIMIT, read_lists


@dataclass(slots=True)
class Files:
    """All that the files say, and all that is wrong with them."""

    config: Config | None = None
    credentials: Credentials | None = None
    peers: list[Peer] = field(default_factory=list)
    """Those that would be in force."""
    blocks: list[Block] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def read_files(config_path: Path) -> Files:
    """Read everything; a mistake in one file does not hide those in the others."""
    files = Files()
    try:
        files.config = load_config(config_path)
    except InvalidInput as invalid:
        files.errors.extend(invalid.problems)
    if files.config is not None:
        _read_credentials(files, files.config)
        _look_at_hooks(files, files.config)
        with contextlib.suppress(OSError):  # a kernel that does not tell
            files.errors.extend(missing_addresses(files.config, own_addresses()))
        _look_at_data_path(files, files.config)
    _read_peers(files, config_path)
    return files


def _look_at_data_path(files: Files, config: Config) -> None:
    """The kernel is slower for it, and no less right."""
    try:
        found = asyncio.run(holdings()).segmenting
    except OSError:  # shows no IPsec, or not to us: the modules can be seen all the same
        found = segmenting(())
    families = (address.version for address in config.host.addresses)
    files.warnings.extend(remarks(found, config.data_path.segmentation, families))
    if driver := generic_cipher():
        message = f"the kernel's AES-GCM is the generic one ({driver}), ten times slower or more"
        remedy = "load the module for this processor, as aesni_intel; or have the hypervisor pass AES through"
        files.warnings.append(Problem("/proc/crypto", "", "", message, remedy))


def _read_credentials(files: Files, config: Config) -> None:
    now = time.time()
    try:
        mine = config.credentials
        files.credentials = load_credentials(
            mine.certificate, mine.private_key, mine.authorities, name=config.host.name, now=now
        )
    except InvalidInput as invalid:
        files.errors.extend(invalid.problems)
        return
    automatic = bool(config.renewal.command)
    if automatic and (fault := program_fault(config.renewal.command)):
        message, _, remedy = fault.rpartition("; ")
        problem = Problem(str(config.path), "renewal.command", config.renewal.command[0], message, remedy)
        files.errors.append(problem)
    files.warnings.extend(expiring(files.credentials.validities, now, automatic=automatic))
    files.warnings.extend(uncertified(files.credentials, config.host))
    _read_lists(files, config, files.credentials, now)


def _read_lists(files: Files, config: Config, mine: Credentials, now: float) -> None:
    """Those that lie in files; URLs are asked by the service alone."""
    known = Revocations()
    for index, source in enumerate(config.credentials.crls):
        key = f"credentials.crls[{index}]"
        try:
            if isinstance(source, Path):
                data = read_trusted(source, LIMIT, key=key)
                lists = read_lists(data, str(source), mine.authorities, now=now, key=key)
                known.in_force |= {one.issuer: one for one in lists}
        except InvalidInput as invalid:
            files.errors.extend(invalid.problems)
    files.warnings.extend(known.problems(now))
    files.errors.extend(own_problems(known, mine))


def _look_at_hooks(files: Files, config: Config) -> None:
    """The mesh runs without them, so none is an error."""
    for path, reason in find_hooks(config.hooks).refused.items():
        message, _, remedy = reason.rpartition("; ")
        files.warnings.append(Problem(str(path), "", "", f"this hook is not run: {message}", remedy))


def _read_peers(files: Files, config_path: Path) -> None:
    """Where the configuration cannot be read, the peers are looked for where they lie by default."""
    config = files.config
    directory = config.peers if config is not None else config_path.parent / "peers.d"
    scan = peer_directory(directory).scan()
    blocks = block_directory(config.blocks if config is not None else config_path.parent / "blocks.d").scan()
    files.errors.extend((*scan.problems, *blocks.problems))
    registry = PeerRegistry(config.host if config is not None else Host(name="", addresses=()))
    registry.update((*scan.entries.values(), *blocks.entries.values()))
    files.errors.extend(registry.problems)
    files.peers = sorted(registry.peers.values(), key=lambda peer: peer.name)
    files.blocks = sorted(registry.blocks, key=lambda block: block.name)
    if config is not None:
        around = needed_now()
        files.warnings.extend(registry.caught(around, config.policy))
        files.warnings.extend(cut_off(files.peers, around, config.policy, config.exempt))
    if scan.complete and not files.peers and not files.blocks and not files.errors:
        message, remedy = "describes no other host", "add one: swanmesh add-peer NAME ADDRESS…"
        files.warnings.append(Problem(str(directory), "", "", message, remedy))


def offline_plan(files: Files) -> PlanReply:
    """What a charon that holds nothing yet would be asked for. Raises InvalidInput if the files do not even
    say who this host is."""
    if files.config is None or files.credentials is None:
        raise InvalidInput(*files.errors)
    actions = [
        PlannedAction(
            action=planned.action.verb,
            peer=planned.action.peer,
            target=planned.action.target,
            reason=planned.action.reason.words,
        )
        for planned in offline(files.config.settings(files.credentials), [*files.peers, *files.blocks])
    ]
    return PlanReply(actions=actions, charon_reachable=False)
