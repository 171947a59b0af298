"""`swanmesh hooks`: which hooks there are, and running them by hand."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import click

from swanmesh.cli.failures import ExitStatus, Failure, complain
from swanmesh.cli.output import say, say_json, table
from swanmesh.cli.setup import Setup, complete_peer, json_option, pass_setup

if TYPE_CHECKING:
    from swanmesh.core.events import MeshEvent
    from swanmesh.hooks.discovery import Found
    from swanmesh.hooks.process import HookRun

_PEER_EVENTS = ("peer-added", "peer-up", "peer-down", "peer-removed", "peer-violation")
_EVENTS = (
    *_PEER_EVENTS,
    "removal-held",
    "certificate-expiring",
    "certificate-due",
    "certificate-renewed",
    "certificate-revoked",
    "revocation-held",
    "crl-expired",
    "charon-lost",
    "charon-back",
    "started",
    "stopping",
)
_NOBODY, _NOWHERE = "peer.mesh.example", "192.0.2.1"
"""Whom a peer's event is about if nobody is named: an address that belongs to no host (RFC 5737)."""
_REASON = "a test by hand"


@click.group()
def hooks() -> None:
    """The programs in hooks.d that are told what happens."""


@hooks.command("list")
@json_option
@pass_setup
def list_(setup: Setup, as_json: bool) -> int:
    """Show which files are run, in their order, and which are not and why."""
    from swanmesh.hooks.discovery import find_hooks

    directory = setup.config.hooks
    found = find_hooks(directory)
    if as_json:
        say_json(
            {
                "directory": str(directory),
                "hooks": [str(path) for path in found.hooks],
                "refused": {str(path): reason for path, reason in found.refused.items()},
                "skipped": {str(path): reason for path, reason in found.skipped.items()},
            }
        )
        return ExitStatus.DONE
    rows = [(path.name, "run", "") for path in found.hooks]
    rows += [(path.name, "refused", reason) for path, reason in found.refused.items()]
    rows += [(path.name, "skipped", reason) for path, reason in found.skipped.items()]
    say(*(table(("FILE", "", "WHY"), rows) if rows else [f"no hooks in {directory}"]))
    return ExitStatus.DONE


@hooks.command("test")
@click.argument("event", type=click.Choice(_EVENTS), metavar="EVENT")
@click.argument("peer", required=False, shell_complete=complete_peer)
@json_option
@pass_setup
def test(setup: Setup, event: str, peer: str | None, as_json: bool) -> int:
    """Run all hooks by hand, as if EVENT had happened.

    \b
    EVENT: peer-added, peer-up, peer-down, peer-removed, peer-violation, removal-held,
    certificate-expiring, certificate-due, certificate-renewed, certificate-revoked, revocation-held,
    crl-expired, charon-lost, charon-back, started or stopping.

    PEER, for events of a peer, is one of peers.d; without it one is made up. Hooks can tell a test: the
    variable SWANMESH_TEST is 1, and the JSON on standard input has "test": true. Exit status 1 if a hook
    fails or is refused.
    """
    from swanmesh.hooks.discovery import find_hooks

    told = _made_up(setup, event, peer)
    directory = setup.config.hooks
    found = find_hooks(directory)
    complain(*(f"{path}: refused: {reason}" for path, reason in found.refused.items()))
    if not found.hooks and not as_json:
        say(f"no hooks to run in {directory}")
    runs = asyncio.run(_run_all(setup, found, told, as_json))
    if as_json:
        refused = {str(path): reason for path, reason in found.refused.items()}
        say_json({"runs": [_plain(run) for run in runs], "refused": refused})
    failed = bool(found.refused) or any(run.error for run in runs)
    return ExitStatus.FAILED if failed else ExitStatus.DONE


def _made_up(setup: Setup, event: str, name: str | None) -> MeshEvent:
    """Raises NoSuchPeer, and Failure for one that the event has nothing to do with."""
    from swanmesh.core.events import MeshEvent

    peer: str = ""
    addresses: tuple[str, ...] = ()
    if event in _PEER_EVENTS:
        peer, addresses = _known(setup, name) if name else (_NOBODY, (_NOWHERE,))
    elif name:
        raise Failure(ExitStatus.INVALID, f"{event} concerns no single peer; leave {name} out")
    return MeshEvent(kind=event, time=time.time(), peer=peer, addresses=addresses, reason=_REASON, test=True)


def _known(setup: Setup, name: str) -> tuple[str, tuple[str, ...]]:
    from swanmesh.config.entry_files import peer_directory
    from swanmesh.core.peers.description import find_peer

    peer = find_peer(name, peer_directory(setup.config.peers).scan().entries.values())
    return peer.name, tuple(str(address) for address in peer.addresses)


async def _run_all(setup: Setup, found: Found, event: MeshEvent, as_json: bool) -> list[HookRun]:
    """One after the other, as the service does."""
    from swanmesh.hooks.process import run_hook
    from swanmesh.hooks.queue import Turn

    runs: list[HookRun] = []

    def report(run: HookRun) -> None:
        runs.append(run)
        if not as_json:
            say(f"{run.hook.name}: {run.error or 'done'}, {run.seconds:.3f} s")
            say(*(f"  {line}" for line in run.output))

    for hook in found.hooks:
        environment = {**setup.config.environment, "SWANMESH_TEST": "1"}
        await run_hook(hook, Turn(event), report, environment=environment)
    return runs


def _plain(run: HookRun) -> dict[str, Any]:
    return {
        "hook": str(run.hook),
        "status": run.status,
        "seconds": round(run.seconds, 3),
        "error": run.error,
        "output": run.output,
    }
