"""`add-peer` and `remove-peer`: files first, whole or not at all; then the service is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swanmesh.cli.failures import ExitStatus, Failure, complain
from swanmesh.cli.output import plural, say, say_json
from swanmesh.cli.setup import Setup, WaitCommand, complete_peer, json_option, pass_setup, wait_option
from swanmesh.core.settings.policy import OFFERED

if TYPE_CHECKING:
    from swanmesh.cli.add import Untold


@click.command("add-peer", cls=WaitCommand)
@click.argument("name", required=False, metavar="NAME", shell_complete=complete_peer)
@click.argument("addresses", nargs=-1, metavar="ADDRESS…")
@click.option("--policy", type=click.Choice(OFFERED), help="If not the host's own.")
@click.option("--from", "list_file", metavar="FILE|-", help="Take many peers, all or none; see below.")
@wait_option("they are up")
@json_option
@pass_setup
def add_peer(
    setup: Setup,
    name: str | None,
    addresses: tuple[str, ...],
    policy: str | None,
    list_file: str | None,
    wait: float | None,
    as_json: bool,
) -> int:
    """Add the peer NAME with its addresses, or give it other ones.

    NAME is the name in the peer's certificate. Writes peers.d/NAME.yaml, whole or not at all, tells the
    service, and says what became of it. The same again changes nothing. With no service running the file is
    loaded when it starts.

    The same directory is good on every host: a host passes over its own name.

    \b
    --from takes lines of NAME ADDRESS… (# before a comment),
    or a YAML or JSON list: [{"name": …, "addresses": […], "policy": …}, …]
    """
    from swanmesh.cli.add import add, parse

    peers = parse(name, addresses, policy, list_file)
    outcome = add(setup, peers)
    missing = _wait(setup, outcome.awaited, wait, gone=False)
    outcome.look(setup)
    if as_json:
        say_json({"peers": outcome.as_json(), "service": outcome.service})
    else:
        say(*outcome.lines())
    return _ending(missing, outcome.untold, wait)


@click.command("remove-peer", cls=WaitCommand)
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=complete_peer)
@wait_option("their associations are ended")
@json_option
@pass_setup
def remove_peer(setup: Setup, names: tuple[str, ...], wait: float | None, as_json: bool) -> int:
    """Remove peers, all or none: their associations end and their connections are unloaded.

    With no service running that is done when it starts.
    """
    from swanmesh.cli.add import tell
    from swanmesh.core.peers.removals import MOST

    wanted, paths = _remove_files(setup, names)
    told, untold = tell(setup, paths, removed=True)
    missing = _wait(setup, wanted if untold is None else [], wait, gone=True)
    if as_json:
        removed = [{"name": n, "file": str(p)} for n, p in zip(wanted, paths, strict=True)]
        say_json({"removed": removed, "service": untold is None})
    elif untold is not None:
        say(*(f"{name}: removed" for name in wanted))
        say(f"not unloaded yet: {untold}; the service does it as soon as it runs")
        if len(wanted) > MOST:
            say("so many at once it may take for a slip: then run `swanmesh confirm removal`")
    else:
        say(*(f"{name}: removed" for name in wanted))
        complain(*(told.problems if told is not None else ()))
    return _ending(missing, untold, wait)


def _remove_files(setup: Setup, names: Sequence[str]) -> tuple[list[str], list[Path]]:
    from swanmesh.config.edit import PeerEditor
    from swanmesh.core.model import InvalidInput

    with PeerEditor(setup.config.peers) as editor:
        wanted = _meant(setup.config.peers, names)
        try:
            return wanted, editor.remove(wanted)
        except InvalidInput as invalid:
            lines = [str(problem) for problem in invalid.problems]
            raise Failure(ExitStatus.INVALID, *lines, "nothing was removed") from None


def _meant(directory: Path, asked: Sequence[str]) -> list[str]:
    """The names of these peers; one with a file of that name is meant even if the file cannot be read.

    Raises NoSuchPeer."""
    from swanmesh.config.entry_files import peer_directory
    from swanmesh.core.peers.description import find_peer

    files = {path.stem for path in directory.iterdir()}
    if files.issuperset(name.lower() for name in asked):
        return [name.lower() for name in asked]
    known = peer_directory(directory).scan().entries.values()
    return [name.lower() if name.lower() in files else find_peer(name, known).name for name in asked]


def _wait(setup: Setup, names: Sequence[str], wait: float | None, *, gone: bool) -> dict[str, str]:
    if wait is None or not names:
        return {}
    return setup.client.wait(names, wait, gone=gone).missing


def _ending(missing: dict[str, str], untold: Untold | None, wait: float | None) -> int:
    """Without a service all is done that can be; one that hangs is worth an alarm."""
    from swanmesh.control.client import ServiceTimeout

    complain(*(f"{name}: {reason}" for name, reason in missing.items()))
    if missing:
        complain(f"{plural(len(missing), 'peer')} not there in time")
        return ExitStatus.TIMED_OUT
    if isinstance(untold, ServiceTimeout):
        return ExitStatus.TIMED_OUT
    return ExitStatus.UNREACHABLE if wait is not None and untold is not None else ExitStatus.DONE
