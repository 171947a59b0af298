"""`swanmesh ca list|show|revoke|crl`: what an authority issued, and what it took back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swanmesh.cli.ca_access import DAY, days_option, directory_option, open_authority, signing_options
from swanmesh.cli.output import plural, say, say_json, table
from swanmesh.cli.setup import json_option

if TYPE_CHECKING:
    from swanmesh.pki.record import Entry

_REASONS = (
    "unspecified",
    "key-compromise",
    "affiliation-changed",
    "superseded",
    "cessation-of-operation",
    "privilege-withdrawn",
)


@click.command("list")
@directory_option
@json_option
def list_(directory: Path, as_json: bool) -> None:
    """List all that was issued."""
    from swanmesh.pki.record import Record

    now = time.time()
    entries = Record(directory).entries()
    if as_json:
        say_json([_facts(entry, now) for entry in entries])
        return
    rows = [
        (
            entry.name,
            entry.state(now),
            f"{entry.end:%Y-%m-%d}",
            entry.serial,
            " ".join(map(str, entry.addresses)),
        )
        for entry in entries
    ]
    say(*table(("NAME", "STATE", "UNTIL", "SERIAL", "ADDRESSES"), rows))


@click.command()
@click.argument("host", metavar="[NAME|SERIAL]", required=False)
@directory_option
@json_option
def show(host: str | None, directory: Path, as_json: bool) -> None:
    """Show the authority, or the certificates of a host."""
    from swanmesh.cli.cert import lines, moment
    from swanmesh.pki.authority import load_certificate
    from swanmesh.pki.describe import describe
    from swanmesh.pki.record import Record

    now = time.time()
    record = Record(directory)
    if host is None:
        facts = describe(load_certificate(directory), now=now)
        entries = record.entries()
        in_force = sum(entry.state(now) == "in force" for entry in entries)
        if as_json:
            say_json({**facts, "issued": len(entries), "in_force": in_force})
        else:
            say(*lines(facts, now), f"issued:      {len(entries)}, {in_force} in force")
        return
    found = record.find(host)
    if as_json:
        say_json([_facts(entry, now) for entry in found])
        return
    for place, entry in enumerate(found):
        say(*([""] if place else []), *lines(describe(entry.certificate, now=now), now))
        if entry.revocation is not None:
            say(f"revoked:     {moment(entry.revocation.at)}, {entry.revocation.reason}")


@click.command()
@click.argument("host", metavar="NAME|SERIAL")
@directory_option
@click.option("--reason", type=click.Choice(_REASONS), default="unspecified", show_default=True)
@json_option
def revoke(host: str, directory: Path, reason: str, as_json: bool) -> None:
    """Revoke all certificates of a host that are in force, or the one with this serial number.

    It counts for the hosts when they get the list that `swanmesh ca crl` writes.
    """
    from swanmesh.pki.record import Record

    now = time.time()
    record = Record(directory)
    with record.writing():
        found = [entry for entry in record.find(host) if entry.state(now) != "expired"]
        new = record.revoke(found, reason, now=now)
    if as_json:
        say_json({"revoked": [entry.serial for entry in new]})
    elif new:
        say(*(f"revoked {entry.serial} of {entry.name}" for entry in new), "next: swanmesh ca crl")
    else:
        say(f"nothing of {host} is in force")


@click.command()
@signing_options
@days_option(30, "After which hosts should have a newer one.")
@json_option
def crl(
    directory: Path, key_path: Path | None, passphrase_file: Path | None, days: int, as_json: bool
) -> None:
    """Write the signed list of what is revoked: crl.pem in DIR."""
    from swanmesh.pki.record import Record

    authority = open_authority(directory, key_path, passphrase_file)
    record = Record(directory)
    with record.writing():
        path, number, revoked = record.write_list(authority, now=time.time(), lifetime=days * DAY)
    if as_json:
        say_json({"crl": str(path), "number": number, "revoked": revoked})
    else:
        say(f"{path}: number {number}, {plural(revoked, 'certificate')} revoked")


def _facts(entry: Entry, now: float) -> dict[str, Any]:
    from swanmesh.pki.describe import describe

    revocation = entry.revocation
    return {
        **describe(entry.certificate, now=now),
        "serial": entry.serial,
        "state": entry.state(now),
        "revoked_at": None if revocation is None else revocation.at,
        "reason": None if revocation is None else revocation.reason,
    }
