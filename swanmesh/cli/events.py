"""`swanmesh events`: what happens, as it happens."""

from __future__ import annotations

import sys
from datetime import datetime

import click

from swanmesh.cli.failures import ExitStatus, Failure
from swanmesh.cli.output import say
from swanmesh.cli.setup import Setup, json_option, pass_setup


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on until interrupted (so it does without, for now).")
@json_option
@pass_setup
def events(setup: Setup, follow: bool, as_json: bool) -> int:
    """Show peers coming and going, and every action with its reason, one a line.

    Begins with what happens after the call. With --json, each line is one object, as hooks get it.
    """
    import msgspec

    for record in setup.client.events():
        if record.event == "heartbeat":
            continue
        if as_json:
            sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        else:
            at = datetime.fromtimestamp(record.time).astimezone().isoformat(sep=" ", timespec="milliseconds")
            words = [record.event, record.peer, *record.addresses, record.reason]
            say(f"{at}  {'  '.join(filter(None, words))}")
        sys.stdout.flush()
    raise Failure(ExitStatus.UNREACHABLE, "the service ended the stream: it is stopping")
