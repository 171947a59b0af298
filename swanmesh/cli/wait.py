"""`swanmesh wait`: for scripts and units that need the mesh."""

from __future__ import annotations

import click

from swanmesh.cli.failures import ExitStatus, complain
from swanmesh.cli.output import say_json
from swanmesh.cli.setup import Setup, complete_peer, json_option, pass_setup, seconds


@click.command()
@click.argument("peers", nargs=-1, metavar="[PEER…]", shell_complete=complete_peer)
@click.option("--timeout", type=seconds, default=60.0, show_default=True, help="Give up after this time.")
@click.option("--gone", is_flag=True, help="Wait until they are removed and their associations ended.")
@json_option
@pass_setup
def wait(setup: Setup, peers: tuple[str, ...], timeout: float, gone: bool, as_json: bool) -> int:
    """Wait until peers are up; all of them if none is named.

    Exit status 4, and who is missing and why, if they are not in time.
    """
    if gone and not peers:
        raise click.UsageError("--gone needs the names of the peers")
    missing = setup.client.wait(peers, timeout, gone=gone).missing
    if as_json:
        say_json({"missing": missing})
    complain(*(f"{name}: {reason}" for name, reason in missing.items()))
    return ExitStatus.TIMED_OUT if missing else ExitStatus.DONE
