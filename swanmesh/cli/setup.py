"""What all commands share: which configuration, which service, and the options that many of them have."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from swanmesh.cli.failures import ExitStatus, Failure, complain
from swanmesh.cli.output import plural

if TYPE_CHECKING:
    from swanmesh.config.sections import Config
    from swanmesh.control.client import Client

DEFAULT_CONFIG = Path("/etc/swanmesh/swanmesh.yaml")

_DAY = 86400.0
_CONTROL = re.compile(r"^control:.*(?:\n(?:[ \t]+.*)?)*", re.MULTILINE)
"""The one section of swanmesh.yaml, whatever stands around it."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Setup:
    """The configuration file that this call names, and the service that it describes."""

    def __init__(self, config_path: Path, socket: Path | None = None) -> None:
        self.config_path = config_path.absolute()
        self._socket = socket

    @cached_property
    def config(self) -> Config:
        """Raises InvalidInput with every problem."""
        from swanmesh.config.settings import load_config

        return load_config(self.config_path)

    @cached_property
    def client(self) -> Client:
        from swanmesh.control.client import Client

        return Client(self.socket)

    @property
    def socket(self) -> Path:
        """Where the service answers. Raises Failure if the configuration does not tell."""
        return self._socket or self._configured_socket()

    def _configured_socket(self) -> Path:
        """The service goes on with its last good configuration while the file is broken, and its status tells
        what is wrong: so no mistake in the file keeps its socket from being found."""
        from swanmesh.core.model import InvalidInput

        try:
            return self.config.control.socket
        except InvalidInput as invalid:
            if not self.config_path.is_file():
                # A mistyped --config must not command another service.
                raise
            first, *more = invalid.problems
            others = f" (and {plural(len(more), 'mistake')} more)" if more else ""
            socket = self._stated_socket()
            where = "the control socket that it names" if socket else "the default control socket"
            socket = socket or self._default_socket()
            complain(f"{first}{others}", f"asking the service at {where}, {socket}")
            return socket

    def _stated_socket(self) -> Path | None:
        """What the file says of control.socket, however broken the rest of it is; None if nothing."""
        from swanmesh.config.documents import CONFIG_LIMIT, parse_document
        from swanmesh.core.model import InvalidInput
        from swanmesh.files.read import read_bytes

        try:
            text = read_bytes(self.config_path, CONFIG_LIMIT).decode(errors="replace")
            section = _CONTROL.search(text)
            document = parse_document(section.group(), str(self.config_path)) if section else None
        except InvalidInput:
            return None
        control = document.get("control") if isinstance(document, dict) else None
        socket = control.get("socket") if isinstance(control, dict) else None
        return self.config_path.parent / socket if isinstance(socket, str) and socket else None

    def refuse_while_running(self, words: str) -> None:
        """Raises Failure if the service answers, or hangs. `words`: what it would do, and the remedy."""
        from swanmesh.control.client import ServiceTimeout, ServiceUnreachable

        try:
            with contextlib.suppress(ServiceTimeout):
                self.client.health()
        except ServiceUnreachable:
            return
        raise Failure(ExitStatus.FAILED, f"the service runs, and {words}")

    @staticmethod
    def _default_socket() -> Path:
        from swanmesh.config.sections import ControlSection

        return ControlSection().socket


pass_setup = click.make_pass_decorator(Setup)


def seconds(value: str) -> float:
    """An option's length of time: seconds, or a number with a unit as in swanmesh.yaml."""
    length = _length(value)
    if length is None or not 0 <= length <= _DAY:
        raise click.BadParameter(f"{value!r} must be seconds or such as 30s or 5m, up to 24h")
    return length


def _length(text: object) -> float | None:
    """The time that the text says, or None if it is none."""
    from swanmesh.core.settings.setting import duration

    try:
        return float(text) if isinstance(text, str | float) else None
    except ValueError:
        pass
    try:
        return float(duration(text))
    except ValueError:
        return None


class WaitCommand(click.Command):
    """A command whose `--wait` may stand alone or with a time behind it; names are never taken for times
    unless they are times."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        for place, text in enumerate(given):
            if text == "--":
                break
            following = given[place + 1] if place + 1 < len(given) else None
            if text == "--wait" and _length(following) is None:
                given[place] = "--wait=60"
        return super().parse_args(ctx, given)


def json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def wait_option(what: str) -> Callable[[_Command], _Command]:
    return click.option(
        "--wait", "wait", type=seconds, metavar="[SECONDS]", help=f"Wait until {what} (60 s if not said)."
    )


def complete_peer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names for the shell's completion, from the names of the peers' files."""
    from swanmesh.config.directory import is_entry_file
    from swanmesh.core.model import InvalidInput

    setup = Setup(Path(ctx.find_root().params.get("config_path") or DEFAULT_CONFIG))
    try:
        names = [path.stem for path in setup.config.peers.iterdir() if is_entry_file(path)]
    except (InvalidInput, OSError):
        return []
    return sorted(name for name in names if name.startswith(incomplete))
