"""`swanmesh`: finds the command, imports only what that one needs, and turns every ending into a status.

Starting fast matters: scripts call it for each of many peers. So each command's module is imported when the
command is called, and its libraries when they are used.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from swanmesh import __version__
from swanmesh.cli.failures import ExitStatus, complain, report
from swanmesh.cli.setup import DEFAULT_CONFIG, Setup

_MODULES = {
    "run": "run",
    "add-peer": "peers",
    "remove-peer": "peers",
    "add-block": "blocks",
    "remove-block": "blocks",
    "status": "status",
    "plan": "plan",
    "check": "check",
    "wait": "wait",
    "up": "control",
    "down": "control",
    "rekey": "control",
    "bench": "bench",
    "confirm": "confirm",
    "policy": "policy",
    "disable": "disable",
    "enable": "disable",
    "events": "events",
    "hooks": "hooks",
    "ca": "ca",
    "enroll": "enroll",
    "cert": "cert",
    "guard": "guard",
    "purge": "purge",
}
"""Command to module of this package, in the order that --help shows."""


class _Commands(click.Group):
    """Knows the names of all commands, and loads one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        loaded = importlib.import_module(f"swanmesh.cli.{module}")
        command = getattr(loaded, cmd_name.replace("-", "_"))
        return command if isinstance(command, click.Command) else None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="SWANMESH_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    show_envvar=True,
    metavar="FILE",
    help="This host's configuration.",
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="SWANMESH_SOCKET",
    metavar="FILE",
    help="The service's control socket, if not the one that the configuration names.",
)
@click.version_option(__version__, prog_name="swanmesh")
@click.pass_context
def cli(ctx: click.Context, config_path: Path, socket: Path | None) -> None:
    """Keeps every pair of hosts encrypted with IPsec in transport mode, through strongSwan.

    \b
    Exit status: 0 done, 1 failed, 2 wrong usage or invalid input,
    3 the service is not reachable, 4 timed out.

    \b
    Completion: eval "$(_SWANMESH_COMPLETE=bash_source swanmesh)"
    (zsh_source and fish_source likewise).
    """
    ctx.obj = Setup(config_path, socket)


def main(arguments: Sequence[str]) -> int:
    """Carry out one command line; the exit status."""
    try:
        ended = cli.main(list(arguments), prog_name="swanmesh", standalone_mode=False)
        sys.stdout.flush()
        return ended if isinstance(ended, int) else ExitStatus.DONE
    except click.ClickException as error:
        return _usage(error)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader has seen enough. Nothing is left to say, not even at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    except Exception as error:  # the edge: whatever it was, one line and a status
        return report(error)


def _usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if context is not None and message == context.get_help():
        # Called with nothing at all: the help is the message.
        click.echo(message, err=True)
    elif context is not None:
        complain(f"{message} (see `{context.command_path} --help`)")
    else:
        complain(message)
    return ExitStatus.INVALID


def entry() -> None:
    """What the installed command runs."""
    sys.exit(main(sys.argv[1:]))
