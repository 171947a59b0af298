"""`swanmesh confirm`: lets happen what the service holds back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from swanmesh.cli.output import plural, say, say_json
from swanmesh.cli.setup import Setup, json_option, pass_setup

if TYPE_CHECKING:
    from swanmesh.control.protocol import ConfirmSubject


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
    _confirm(setup, "removal", "removed", as_json)


@confirm.command()
@json_option
@pass_setup
def revocation(setup: Setup, as_json: bool) -> None:
    """Let a revocation list come into force, however many peers it ends.

    The service holds a list that would end more than three and more than a quarter of all peers, which stay
    up meanwhile. `status` and `check` say what is held. If it was a slip, have the authority sign another
    list with a higher number. If the authority's key was stolen, no list helps: take the authority out of
    `credentials.authorities`.
    """
    _confirm(setup, "revocation", "ended", as_json)


def _confirm(setup: Setup, subject: ConfirmSubject, verb: str, as_json: bool) -> None:
    """`verb`: what becomes of the peers."""
    peers = setup.client.confirm(subject).peers
    if as_json:
        say_json({verb: peers})
    elif peers:
        say(f"{plural(len(peers), 'peer')} {verb}: {', '.join(peers)}")
    else:
        say("nothing is held")
