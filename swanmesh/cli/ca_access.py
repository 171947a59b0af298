"""What the commands of `swanmesh ca` share: where the authority is, and the way to its key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from swanmesh.pki.authority import Authority

DAY = 86400.0

_Command = TypeVar("_Command", bound=Callable[..., Any])

directory_option = click.option(
    "--directory",
    type=click.Path(path_type=Path),
    envvar="SWANMESH_CA",
    show_envvar=True,
    metavar="DIR",
    required=True,
    help="Where the authority lives: its certificate, its key and its record. Best on none of the hosts.",
)
key_option = click.option(
    "--key",
    "key_path",
    type=click.Path(path_type=Path),
    envvar="SWANMESH_CA_KEY",
    show_envvar=True,
    metavar="FILE",
    help="Its key.  [default: ca.key in DIR]",
)
passphrase_file_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Whose first line is the passphrase of its key. Without it, you are asked.",
)


def signing_options(command: _Command) -> _Command:
    """The options of all commands that need the authority's key."""
    return directory_option(key_option(passphrase_file_option(command)))


def days_option(default: int, what: str) -> Callable[[_Command], _Command]:
    days = click.IntRange(1, 36500)
    return click.option("--days", type=days, default=default, show_default=True, help=what)


def open_authority(directory: Path, key_path: Path | None, passphrase_file: Path | None) -> Authority:
    """The authority with its key. Raises InvalidInput, and Failure where nobody can be asked."""
    from swanmesh.cli.terminal import passphrase
    from swanmesh.pki.authority import Authority

    def ask() -> bytes:
        if passphrase_file is not None:
            return read_passphrase(passphrase_file)
        return passphrase(str(key_path or directory / "ca.key"))

    return Authority.load(directory, key_path, ask)


def read_passphrase(path: Path) -> bytes:
    """The first line of a file that nobody else may read. Raises InvalidInput."""
    from swanmesh.core.model import InvalidInput, Problem
    from swanmesh.files.read import read_trusted

    first = (read_trusted(path, 65536, secret=True).splitlines() or [b""])[0]
    if not first:
        raise InvalidInput(
            Problem(str(path), "", "", "begins with an empty line", "write a passphrase there")
        )
    return first
