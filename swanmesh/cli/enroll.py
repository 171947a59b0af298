"""`swanmesh enroll`: a certificate for this host, whose key never leaves it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swanmesh.cli.output import say, say_json
from swanmesh.cli.setup import Setup, json_option, pass_setup

if TYPE_CHECKING:
    from swanmesh.pki.enrolment import Place


@click.group()
def enroll() -> None:
    """Get a certificate for this host.

    \b
    ssh new swanmesh enroll request | swanmesh ca sign - --yes | ssh new swanmesh enroll install -
    """


@enroll.command()
@click.option(
    "--key-type",
    type=click.Choice(["p256", "ed25519", "rsa"]),
    default="p256",
    show_default=True,
    help="Kind of a new key.",
)
@pass_setup
def request(setup: Setup, key_type: str) -> None:
    """Make a key, and write a request for this host's name and addresses to standard output.

    The key waits beside the one in use until its certificate is installed; a key that waits already is used
    again.
    """
    from swanmesh.pki.enrolment import request

    sys.stdout.write(request(_place(setup), key_type, now=time.time()).decode())


@enroll.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@pass_setup
def install(setup: Setup, file: Path, as_json: bool) -> None:
    """Install the certificate in FILE (`-`: standard input), with the key that it was asked for.

    FILE may hold the certificates of its authorities too, in any order. Certificate, key, name, addresses and
    authority must fit before anything changes. A file of an authority that is there is never changed.
    """
    from swanmesh.cli.cert import lines, read_input
    from swanmesh.pki.describe import describe
    from swanmesh.pki.enrolment import install

    place, now = _place(setup), time.time()
    facts = describe(install(place, read_input(file), str(file), now=now), now=now)
    if as_json:
        say_json({"installed": str(place.certificate), "private_key": str(place.private_key), **facts})
    else:
        say(f"installed {place.certificate} and its key:", *lines(facts, now))


def _place(setup: Setup) -> Place:
    from swanmesh.pki.enrolment import place_of

    return place_of(setup.config.host, setup.config.credentials)
