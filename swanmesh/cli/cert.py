"""`swanmesh cert`: what stands in a certificate, and another one for this host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swanmesh.cli.output import say, say_json, span
from swanmesh.cli.setup import Setup, complete_peer, json_option, pass_setup

if TYPE_CHECKING:
    from swanmesh.control.protocol import RenewReply

_ALLOWANCE = 15.0
"""Seconds for all of a renewal but its program."""


@click.group()
def cert() -> None:
    """This host's certificate, and others'."""


@cert.command()
@click.argument("what", required=False, metavar="[PEER|FILE]", shell_complete=complete_peer)
@json_option
@pass_setup
def show(setup: Setup, what: str | None, as_json: bool) -> int:
    """Show the certificate that PEER has shown in IKE, or each in FILE; this host's own if neither is named.

    FILE is PEM or DER, `-` is standard input. What exists as a file is one; write ./NAME where that is in
    doubt. Exit status 1 if the peer has shown none.
    """
    from swanmesh.cli.failures import ExitStatus

    now = time.time()
    peer = what is not None and what != "-" and "/" not in what and not Path(what).exists()
    facts = _shown_by(setup, str(what), now) if peer else _in_file(setup, what, now)
    if as_json:
        say_json(facts)
    elif not facts:
        say(f"{what} has shown no certificate yet")
    else:
        for place, one in enumerate(facts):
            say(*([""] if place else []), *lines(one, now))
    return ExitStatus.DONE if facts else ExitStatus.FAILED


def _in_file(setup: Setup, what: str | None, now: float) -> list[dict[str, Any]]:
    from swanmesh.core.model import InvalidInput, Problem
    from swanmesh.pki.describe import describe
    from swanmesh.pki.reading import read_certificates

    path = setup.config.credentials.certificate if what is None else Path(what)
    try:
        found = read_certificates(read_input(path))
    except ValueError as error:
        raise InvalidInput(Problem(str(path), "", "", str(error), "give one in PEM or DER")) from None
    return [describe(certificate, now=now) for certificate in found]


def _shown_by(setup: Setup, name: str, now: float) -> list[dict[str, Any]]:
    from swanmesh.pki.describe import describe
    from swanmesh.pki.reading import read_certificates

    (peer,) = setup.client.status([name]).peers
    return [
        describe(read_certificates(one.der)[0], now=now)
        | {"associations": one.ike_ids, "certain": one.certain, "revoked": one.revoked}
        for one in peer.certificates
    ]


@cert.command()
@click.option("--now", is_flag=True, help="Even if it is not due.")
@json_option
@pass_setup
def renew(setup: Setup, now: bool, as_json: bool) -> int:
    """Get this host a new key and certificate by the program that `renewal.command` names.

    The running service does it, within its sandbox, and takes them up without an association lost; without
    one it is done here. With --now the new one may also end before the one in use. Exit status 1 if it
    failed: the certificate in use stays then.
    """
    from swanmesh.cli.failures import ExitStatus, complain
    from swanmesh.control.client import ServiceUnreachable

    limit = setup.config.renewal.time_limit + _ALLOWANCE
    try:
        reply = setup.client.renew(now=now, wait=limit)
    except ServiceUnreachable as error:
        complain(str(error), "renewing without it")
        reply = _renew_here(setup, now=now)
    if as_json:
        say_json(reply)
    elif reply.outcome == "renewed":
        say(f"renewed: until {moment(reply.not_after)}")
    elif reply.outcome == "under-way":
        say("asked, and still under way: see `swanmesh status`")
    elif reply.outcome == "not-due" and reply.next_renewal is not None:
        say(f"not due before {moment(reply.next_renewal)}; --now does it at once")
    if reply.why:
        complain(f"not renewed: {reply.why}")
    return ExitStatus.FAILED if reply.why else ExitStatus.DONE


def _renew_here(setup: Setup, *, now: bool) -> RenewReply:
    import asyncio

    from swanmesh.control.protocol import RenewReply
    from swanmesh.core.credentials.renewal import due
    from swanmesh.core.model import InvalidInput, Problem
    from swanmesh.pki.certificates import load_credentials
    from swanmesh.pki.enrolment import place_of
    from swanmesh.pki.renewal import NotRenewed, renew

    config = setup.config
    how, place = config.renewal, place_of(config.host, config.credentials)
    if not how.command:
        remedy = "name the program that asks your authority"
        raise InvalidInput(Problem(str(config.path), "renewal.command", "", "is not set", remedy))
    if not now:
        mine = load_credentials(
            place.certificate, place.private_key, place.authorities, name=place.name, now=time.time()
        )
        if due(mine) > time.time():
            return RenewReply(outcome="not-due", not_after=mine.not_after, next_renewal=due(mine))
    renewing = renew(
        place,
        how.command,
        environment=config.environment,
        time_limit=how.time_limit,
        clock=time.time,
        outlives=not now,
    )
    try:
        made = asyncio.run(renewing)
    except NotRenewed as error:
        return RenewReply(outcome="failed", why=str(error))
    return RenewReply(outcome="renewed", not_after=made.not_valid_after_utc.timestamp())


def read_input(path: Path) -> bytes:
    """A file that people name, or standard input. Raises InvalidInput, also if it is larger than 1 MiB."""
    import sys

    from swanmesh.core.model import InvalidInput, Problem
    from swanmesh.files.read import read_bytes
    from swanmesh.pki.reading import LIMIT

    if str(path) != "-":
        return read_bytes(path, LIMIT)
    data = sys.stdin.buffer.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise InvalidInput(Problem("-", "", "", "is larger than 1 MiB", "correct it: such a file is small"))
    return data


def lines(facts: dict[str, Any], now: float) -> Iterator[str]:
    """The facts of `describe` for people."""
    left = facts["not_after"] - now
    ends = f", {span(left)} left" if facts["state"] == "valid" else f" ({facts['state']})"
    limit = facts["path_length"]
    below = "" if limit is None else f", at most {limit} below it"
    stands = [f"IKE_SA #{one}" for one in facts.get("associations", ())]
    doubt = "" if facts.get("certain", True) else " (as far as is known)"
    for word, text in (
        ("REVOKED", facts.get("revoked", "")),
        ("in use", ", ".join(stands) + doubt if stands else ""),
        ("subject", facts["subject"] or "none"),
        ("issuer", facts["issuer"] or "none"),
        ("serial", facts["serial"]),
        ("authority", f"yes{below}" if facts["authority"] else ""),
        ("names", ", ".join(facts["names"])),
        ("addresses", ", ".join(facts["addresses"])),
        ("from", moment(facts["not_before"])),
        ("until", moment(facts["not_after"]) + ends),
        ("key", f"{facts['key']}, id {facts['key_id']}"),
        ("signed with", facts["signed_with"]),
        ("purposes", ", ".join(facts["purposes"])),
        ("sha256", facts["sha256"]),
    ):
        if text:
            yield f"{word + ':':13}{text}"


def moment(seconds: float) -> str:
    """A time for people, whatever year it lies in."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
