"""`up`, `down` and `rekey`: what the operator asks of one peer's associations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from swanmesh.cli.failures import ExitStatus, complain
from swanmesh.cli.output import say, say_json
from swanmesh.cli.setup import (
    Setup,
    WaitCommand,
    complete_peer,
    json_option,
    pass_setup,
    seconds,
    wait_option,
)

if TYPE_CHECKING:
    from swanmesh.control.protocol import Command

_MOMENT = 2.0
"""Seconds that a command without --wait gives charon and the peer: enough in a mesh in which all is well."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _options(until: str, *, required: bool = True) -> Callable[[_Function], _Function]:
    def add(function: _Function) -> _Function:
        function = click.option("--timeout", type=seconds, help="The same as --wait with a time.")(function)
        function = wait_option(until)(json_option(function))
        return click.argument(
            "peers", nargs=-1, required=required, metavar="PEER…", shell_complete=complete_peer
        )(function)

    return add


_EPILOG = (
    "PEER is a name, the first part of one (web12), or an address; if one is not known, nothing is done. "
    "Exit status 1 if it is not so within 2 s, and why not; with --wait 4, if not in that time."
)


@click.command(cls=WaitCommand, epilog=_EPILOG)
@_options("they are up")
@pass_setup
def up(setup: Setup, peers: tuple[str, ...], wait: float | None, timeout: float | None, as_json: bool) -> int:
    """Bring peers up now, without waiting for the next attempt; also ends a `down`."""
    return _send(setup, "up", peers, wait if timeout is None else timeout, as_json)


@click.command(cls=WaitCommand, epilog=_EPILOG)
@_options("their associations are ended")
@pass_setup
def down(
    setup: Setup, peers: tuple[str, ...], wait: float | None, timeout: float | None, as_json: bool
) -> int:
    """End the associations with peers, and keep them down until `up`."""
    return _send(setup, "down", peers, wait if timeout is None else timeout, as_json)


@click.command(cls=WaitCommand, epilog=_EPILOG)
@_options("all keys are new", required=False)
@pass_setup
def rekey(
    setup: Setup, peers: tuple[str, ...], wait: float | None, timeout: float | None, as_json: bool
) -> int:
    """Give the associations with peers new keys now.

    Without PEER those of all peers that are up, spread over a while; that goes on by itself, without --wait.
    """
    if not peers and (wait is not None or timeout is not None):
        raise click.UsageError("--wait takes PEERs: of all, they are spread over a while")
    return _send(setup, "rekey", peers, wait if timeout is None else timeout, as_json)


def _send(setup: Setup, command: Command, peers: tuple[str, ...], wait: float | None, as_json: bool) -> int:
    reply = setup.client.command(command, peers, wait=_MOMENT if wait is None else wait)
    if as_json:
        spread = {"spread": reply.spread} if reply.spread else {}
        say_json({"command": command, "done": reply.done, "waiting": reply.waiting, **spread})
    else:
        say(*filter(None, [reply.spread]))
        say(*(f"{name}: {words}" for name, words in reply.done.items()))
    complain(*(f"{name}: asked, not yet done: {why}" for name, why in reply.waiting.items()))
    if not reply.waiting:
        return ExitStatus.DONE
    return ExitStatus.FAILED if wait is None else ExitStatus.TIMED_OUT
