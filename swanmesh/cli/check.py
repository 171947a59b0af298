"""`swanmesh check`: are the files right?"""

from __future__ import annotations

import dataclasses

import click

from swanmesh.cli.failures import ExitStatus, complain
from swanmesh.cli.output import plural, say, say_json
from swanmesh.cli.setup import Setup, json_option, pass_setup


@click.command()
@json_option
@pass_setup
def check(setup: Setup, as_json: bool) -> int:
    """Check configuration, credentials and peers, and show every mistake at once.

    Needs no service and changes nothing. Exit status 2 if there is a mistake; warnings are none.
    """
    from swanmesh.cli.offline import read_files

    files = read_files(setup.config_path)
    if as_json:
        say_json(
            {
                "errors": [dataclasses.asdict(problem) for problem in files.errors],
                "warnings": [dataclasses.asdict(problem) for problem in files.warnings],
                "peers": len(files.peers),
            }
        )
    else:
        complain(*map(str, files.errors))
        complain(*(f"warning: {problem}" for problem in files.warnings))
        if files.errors:
            say(plural(len(files.errors), "mistake"))
        else:
            say(f"{setup.config_path} and {plural(len(files.peers), 'peer')}: no mistakes")
    return ExitStatus.INVALID if files.errors else ExitStatus.DONE
