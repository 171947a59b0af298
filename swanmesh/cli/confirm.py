"""`swanmesh confirm`: lets happen what the service holds back."""

from __future__ import annotations

import click

from swanmesh.cli.output import plural, say, say_json
from swanmesh.cli.setup import Setup, json_option, pass_setup


@click.group()
def confirm() -> None:
    """Let something happen that the service holds back, since it may be a slip."""


@confirm.command()
@json_option
@pass_setup
def removal(setup: Setup, as_json: bool) -> None:
    """Remove the peers whose files are gone, however many they are.

    The service holds the removal of more than three and more than a quarter of all peers within a minute,
    unless `remove-peer` did it. `status` and `check` say what is held. If it was a slip, put the files back.
    """
    peers = setup.client.confirm("removal").peers
    if as_json:
        say_json({"removed": peers})
    elif peers:
        say(f"{plural(len(peers), 'peer')} removed: {', '.join(peers)}")
    else:
        say("nothing is held")
