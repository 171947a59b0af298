"""`swanmesh ca`: an authority of one's own, that issues and signs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swanmesh.cli.ca_access import (
    DAY,
    days_option,
    directory_option,
    key_option,
    open_authority,
    passphrase_file_option,
    read_passphrase,
    signing_options,
)
from swanmesh.cli.ca_record import crl, list_, revoke, show
from swanmesh.cli.output import say, say_json
from swanmesh.cli.setup import json_option

if TYPE_CHECKING:
    from cryptography import x509

    from swanmesh.core.model import Network
    from swanmesh.pki.authority import Authority

_replace_option = click.option(
    "--replace", is_flag=True, help="Even if the name or an address is in a certificate in force."
)
_lifetime_option = days_option(90, "Longest lifetime; up to a tenth less by chance.")


@click.group()
def ca() -> None:
    """Make an authority, issue certificates to hosts, and revoke them."""


@ca.command()
@directory_option
@key_option
@click.option("--name", default="swanmesh authority", show_default=True, help="Name in its certificate.")
@days_option(3650, "Lifetime.")
@click.option(
    "--key-type",
    type=click.Choice(["p256", "ed25519", "rsa"]),
    default="p256",
    show_default=True,
    help="Kind of its key.",
)
@click.option(
    "--path-length",
    type=click.IntRange(0, 10),
    default=0,
    show_default=True,
    help="How many authorities may stand between it and a host.",
)
@click.option(
    "--permit",
    "permitted",
    multiple=True,
    metavar="DOMAIN|NETWORK",
    help="It may certify nothing but names below DOMAIN, or addresses in NETWORK. More than once.",
)
@click.option("--passphrase", "ask", is_flag=True, help="Ask for a passphrase, and encrypt the key by it.")
@passphrase_file_option
@json_option
def init(
    directory: Path,
    key_path: Path | None,
    name: str,
    days: int,
    key_type: str,
    path_length: int,
    permitted: tuple[str, ...],
    ask: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make an authority. One that exists is never replaced.

    Keep its key away from the hosts: whoever has it can make any host of the mesh.
    """
    from swanmesh.cli.terminal import passphrase
    from swanmesh.pki.authority import Authority

    certificate, key = directory / "ca.pem", key_path or directory / "ca.key"
    secret = None
    if passphrase_file is not None:
        secret = read_passphrase(passphrase_file)
    elif ask:
        secret = passphrase(str(key), twice=True)
    Authority.create(
        directory,
        name,
        now=time.time(),
        lifetime=days * DAY,
        kind=key_type,
        path_length=path_length,
        permitted=[_permitted(one) for one in permitted],
        key_path=key,
        passphrase=secret,
    )
    if as_json:
        say_json({"certificate": str(certificate), "private_key": str(key)})
    else:
        say(f"authority {name!r}: {certificate} for every host, {key} to be kept safe")


def _permitted(text: str) -> str | Network:
    """A network, or a domain. Raises BadParameter."""
    from ipaddress import ip_network

    from swanmesh.core.peers.description import check_name

    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        return check_name(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither a domain nor a network: {error}") from None


@ca.command()
@click.argument("name")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS…")
@signing_options
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where NAME.pem and NAME.key are put.  [default: where the authority lives]",
)
@_lifetime_option
@_replace_option
@json_option
def issue(
    name: str,
    addresses: tuple[str, ...],
    directory: Path,
    key_path: Path | None,
    passphrase_file: Path | None,
    output: Path | None,
    days: int,
    replace: bool,
    as_json: bool,
) -> None:
    """Make a key and a certificate for the host NAME with its addresses.

    `enroll request` and `ca sign` do it without the key ever leaving the host.
    """
    from swanmesh.core.peers.description import parse_peer
    from swanmesh.pki.authority import spread
    from swanmesh.pki.reading import read_certificates
    from swanmesh.pki.record import Record

    host = parse_peer(name, list(addresses), source="the command line")
    authority = open_authority(directory, key_path, passphrase_file)
    record, now = Record(directory), time.time()
    with record.writing():
        record.check_free(host.name, host.addresses, None, now=now, replace=replace)
        issued = authority.issue(host.name, host.addresses, now=now, lifetime=spread(days * DAY))
        (made,) = read_certificates(issued.certificate)
        certificate, key = issued.write(output or directory, replace=replace, first=[record.change(made)])
    if as_json:
        say_json({"name": host.name, "certificate": str(certificate), "private_key": str(key)})
    else:
        say(f"{host.name}: {certificate}, {key}")


@ca.command()
@click.argument("request", type=click.Path(path_type=Path))
@signing_options
@_lifetime_option
@_replace_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--only-renew",
    "only",
    metavar="NAME",
    help="Sign nothing but a renewal for NAME, with addresses that its certificate has: for NAME's own ssh.",
)
def sign(
    request: Path,
    directory: Path,
    key_path: Path | None,
    passphrase_file: Path | None,
    days: int,
    replace: bool,
    yes: bool,
    only: str | None,
) -> None:
    """Sign what `swanmesh enroll request` wrote (`-`: standard input).

    What is about to be signed is shown, and asked for. The certificate goes to standard output, the
    authority's own after it: `swanmesh enroll install` takes both.
    """
    from swanmesh.cli.cert import read_input
    from swanmesh.cli.failures import ExitStatus, Failure
    from swanmesh.cli.terminal import agreed
    from swanmesh.pki.authority import spread
    from swanmesh.pki.keys import describe_key, public_der
    from swanmesh.pki.record import Record
    from swanmesh.pki.request import read_request

    asked = read_request(read_input(request), str(request))
    addresses = " ".join(map(str, asked.addresses))
    click.echo(f"{asked.name} at {addresses}, with a key of its own ({describe_key(asked.key)})", err=True)
    key, record = public_der(asked.key), Record(directory)
    replace = replace or only is not None
    if only is not None:
        record.check_renewal(only, asked, now=time.time())
    record.check_free(asked.name, asked.addresses, key, now=time.time(), replace=replace)
    if not yes and not agreed("Sign this?"):
        raise Failure(ExitStatus.FAILED, "not signed")
    authority = open_authority(directory, key_path, passphrase_file)
    with record.writing():
        now = time.time()
        # Again: somebody else may have signed meanwhile.
        again = record.check_renewal(only, asked, now=now) if only is not None else None
        record.check_free(asked.name, asked.addresses, key, now=now, replace=replace)
        if again is None:
            lifetime = spread(days * DAY)
            made = authority.certify(asked.key, asked.name, asked.addresses, now=now, lifetime=lifetime)
            record.add(made)
    _hand_out(again.certificate if again else made, authority)


@ca.command()
@click.argument("host", metavar="NAME|SERIAL")
@signing_options
@_lifetime_option
def renew(host: str, directory: Path, key_path: Path | None, passphrase_file: Path | None, days: int) -> None:
    """Issue a host's newest certificate again, for the same key, name and addresses.

    It goes to standard output, the authority's own after it: `swanmesh enroll install` takes both.
    """
    from swanmesh.core.model import InvalidInput, Problem
    from swanmesh.pki.authority import spread
    from swanmesh.pki.record import Record

    authority = open_authority(directory, key_path, passphrase_file)
    record = Record(directory)
    with record.writing():
        entry = record.find(host)[-1]
        if entry.revocation is not None:
            message = "its newest certificate is revoked, and would vouch for the same key"
            remedy = "have the host ask with a new key (`swanmesh enroll request`)"
            raise InvalidInput(Problem(str(directory), "", host, message, remedy))
        made = authority.certify(
            entry.certificate.public_key(),
            entry.name,
            entry.addresses,
            now=time.time(),
            lifetime=spread(days * DAY),
        )
        record.add(made)
    _hand_out(made, authority)


def _hand_out(made: x509.Certificate, authority: Authority) -> None:
    from swanmesh.pki.reading import pem

    sys.stdout.write((pem(made) + pem(authority.certificate)).decode())


for _command in (list_, show, revoke, crl):
    ca.add_command(_command)
