"""`swanmesh check`: are the files right?"""

from __future__ import annotations

import dataclasses

import click

from swanmesh.cli.failures import ExitStatus, Failure, complain
from swanmesh.cli.output import plural, say, say_json
from swanmesh.cli.setup import Setup, json_option, pass_setup

_PATIENCE = 2.0
"""Seconds that a running service has for its answer."""


@click.command()
@json_option
@pass_setup
def check(setup: Setup, as_json: bool) -> int:
    """Check configuration, credentials and peers, and show every mistake at once.

    Needs no service and changes nothing. A running one is asked what it holds back because it may be a slip.
    Exit status 2 if there is a mistake or something is held; warnings are none.
    """
    from swanmesh.cli.offline import read_files

    files = read_files(setup.config_path)
    held = _held(setup)
    if as_json:
        say_json(
            {
                "errors": [dataclasses.asdict(problem) for problem in files.errors],
                "warnings": [dataclasses.asdict(problem) for problem in files.warnings],
                "held": held,
                "peers": len(files.peers),
            }
        )
    else:
        complain(*map(str, files.errors), *held)
        complain(*(f"warning: {problem}" for problem in files.warnings))
        if files.errors:
            say(plural(len(files.errors), "mistake"))
        elif not held:
            say(f"{setup.config_path} and {plural(len(files.peers), 'peer')}: no mistakes")
    return ExitStatus.INVALID if files.errors or held else ExitStatus.DONE


def _held(setup: Setup) -> list[str]:
    """What the running service holds back; nothing where none answers."""
    from swanmesh.control.client import Client, RequestRefused, ServiceTimeout, ServiceUnreachable

    try:
        return Client(setup.socket, timeout=_PATIENCE).held().problems
    except (Failure, RequestRefused, ServiceTimeout, ServiceUnreachable):
        return []
