"""`swanmesh events`: what happens, as it happens."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from swanmesh.cli.failures import ExitStatus, Failure
from swanmesh.cli.output import say
from swanmesh.cli.setup import Setup, json_option, pass_setup

if TYPE_CHECKING:
    from swanmesh.core.events import MeshEvent


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on until interrupted (so it does without, for now).")
@json_option
@pass_setup
def events(setup: Setup, follow: bool, as_json: bool) -> int:
    """Show peers coming and going, and every action with its reason, one a line.

    Begins with what happens after the call. With --json, each line is one object, as hooks get it.
    """
    import msgspec

    for event in setup.client.events():
        if event.kind == "heartbeat":
            continue
        if as_json:
            sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        else:
            at = datetime.fromtimestamp(event.time).astimezone().isoformat(sep=" ", timespec="milliseconds")
            say(f"{at}  {'  '.join(filter(None, _words(event)))}")
        sys.stdout.flush()
    raise Failure(ExitStatus.UNREACHABLE, "the service ended the stream: it is stopping")


def _words(event: MeshEvent) -> Sequence[str]:
    """What happened, to whom, and why."""
    details = event.details
    if event.kind == "action":
        refused = f"refused: {details['error']}" if "error" in details else ""
        return [str(details.get("action")), event.peer, str(details.get("target", "")), event.reason, refused]
    if event.kind == "lost":
        return ["lost", f"{details.get('records')} events: they came faster than they were read"]
    return [event.kind, event.peer, *event.addresses, event.reason]
