"""`swanmesh wait`: for scripts and units that need the mesh."""

from __future__ import annotations

import time

import click

from swanmesh.cli.failures import ExitStatus, complain
from swanmesh.cli.output import say_json
from swanmesh.cli.setup import Setup, complete_peer, json_option, pass_setup, seconds

_AGAIN = 0.2
"""Seconds between two attempts to reach a service that is not there yet."""


@click.command()
@click.argument("peers", nargs=-1, metavar="[PEER…]", shell_complete=complete_peer)
@click.option("--timeout", type=seconds, default=60.0, show_default=True, help="Give up after this time.")
@click.option("--gone", is_flag=True, help="Wait until they are removed and their associations ended.")
@json_option
@pass_setup
def wait(setup: Setup, peers: tuple[str, ...], timeout: float, gone: bool, as_json: bool) -> int:
    """Wait until peers are up; all of them if none is named.

    Waits for the service, too: right after boot it may not be there yet. Exit status 4, and who is missing
    and why, if they are not in time; 3 if the service is not.
    """
    if gone and not peers:
        raise click.UsageError("--gone needs the names of the peers")
    missing = _wait(setup, peers, timeout, gone)
    if as_json:
        say_json({"missing": missing})
    complain(*(f"{name}: {reason}" for name, reason in missing.items()))
    return ExitStatus.TIMED_OUT if missing else ExitStatus.DONE


def _wait(setup: Setup, peers: tuple[str, ...], timeout: float, gone: bool) -> dict[str, str]:
    from swanmesh.control.client import ServiceTimeout, ServiceUnreachable

    client, end = setup.client, time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        try:
            return client.wait(peers, max(0.0, left), gone=gone).missing
        except (ServiceUnreachable, ServiceTimeout) as error:
            if left <= 0 or not error.passing:
                raise
        time.sleep(min(_AGAIN, max(0.0, left)))
