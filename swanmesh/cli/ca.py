"""`swanmesh ca`: an authority of one's own, enough for a mesh."""

from __future__ import annotations

import time
from pathlib import Path

import click

from swanmesh.cli.output import say, say_json
from swanmesh.cli.setup import json_option

_DAY = 86400.0
_directory = click.option(
    "--directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Where the authority lives: ca.pem and ca.key. Best on none of the hosts.",
)


@click.group()
def ca() -> None:
    """Make an authority, and issue certificates to hosts."""


@ca.command()
@_directory
@click.option("--name", default="swanmesh authority", show_default=True, help="Name in its certificate.")
@click.option("--days", type=click.IntRange(1, 36500), default=3650, show_default=True, help="Lifetime.")
@json_option
def init(directory: Path, name: str, days: int, as_json: bool) -> None:
    """Make an authority. One that exists is never replaced.

    Keep ca.key away from the hosts: whoever has it can make any host of the mesh.
    """
    from swanmesh.pki.authority import Authority

    Authority.create(directory, name, now=time.time(), lifetime=days * _DAY)
    certificate, key = directory / "ca.pem", directory / "ca.key"
    if as_json:
        say_json({"certificate": str(certificate), "private_key": str(key)})
    else:
        say(f"authority {name!r}: {certificate} for every host, {key} to be kept safe")


@ca.command()
@click.argument("name")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS…")
@_directory
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where NAME.pem and NAME.key are put.  [default: where the authority lives]",
)
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="Lifetime.")
@click.option("--replace", is_flag=True, help="Replace NAME.pem and NAME.key if they exist.")
@json_option
def issue(
    name: str,
    addresses: tuple[str, ...],
    directory: Path,
    output: Path | None,
    days: int,
    replace: bool,
    as_json: bool,
) -> None:
    """Make a key and a certificate for the host NAME with its addresses."""
    from swanmesh.core.peers import parse_peer
    from swanmesh.pki.authority import Authority

    host = parse_peer(name, list(addresses), source="the command line")
    authority = Authority.load(directory)
    issued = authority.issue(host.name, host.addresses, now=time.time(), lifetime=days * _DAY)
    certificate, key = issued.write(output or directory, replace=replace)
    if as_json:
        say_json({"name": host.name, "certificate": str(certificate), "private_key": str(key)})
    else:
        say(f"{host.name}: {certificate}, {key}")
