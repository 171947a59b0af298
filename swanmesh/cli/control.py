"""`up`, `down` and `rekey`: what the operator asks of one peer's associations."""

from __future__ import annotations

from typing import Literal

import click

from swanmesh.cli.failures import ExitStatus, complain
from swanmesh.cli.output import say, say_json
from swanmesh.cli.setup import Setup, complete_peer, json_option, pass_setup

_peers = click.argument("peers", nargs=-1, required=True, metavar="PEER…", shell_complete=complete_peer)


@click.command()
@_peers
@json_option
@pass_setup
def up(setup: Setup, peers: tuple[str, ...], as_json: bool) -> int:
    """Bring peers up now, without waiting for the next attempt; also ends a `down`."""
    return _send(setup, "up", peers, as_json)


@click.command()
@_peers
@json_option
@pass_setup
def down(setup: Setup, peers: tuple[str, ...], as_json: bool) -> int:
    """End the associations with peers, and keep them down until `up`."""
    return _send(setup, "down", peers, as_json)


@click.command()
@_peers
@json_option
@pass_setup
def rekey(setup: Setup, peers: tuple[str, ...], as_json: bool) -> int:
    """Give the associations with peers new keys now."""
    return _send(setup, "rekey", peers, as_json)


def _send(
    setup: Setup, command: Literal["up", "down", "rekey"], peers: tuple[str, ...], as_json: bool
) -> int:
    """A peer that is refused holds up no other."""
    from swanmesh.control.client import RequestRefused

    client = setup.client
    done: dict[str, str] = {}
    refused: dict[str, str] = {}
    for peer in peers:
        try:
            done[peer] = client.command(command, peer).message
        except RequestRefused as error:
            refused[peer] = str(error)
    if as_json:
        say_json({"command": command, "done": done, "refused": refused})
    else:
        say(*(f"{peer}: {message}" for peer, message in done.items()))
    complain(*refused.values())
    return ExitStatus.FAILED if refused else ExitStatus.DONE
