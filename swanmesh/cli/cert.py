"""`swanmesh cert`: what stands in a certificate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from swanmesh.cli.output import say, say_json, span
from swanmesh.cli.setup import Setup, json_option, pass_setup


@click.group()
def cert() -> None:
    """Look at certificates."""


@cert.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@json_option
@pass_setup
def show(setup: Setup, file: Path | None, as_json: bool) -> None:
    """Show each certificate in FILE (PEM or DER; `-` is standard input), this host's own if none is named."""
    from swanmesh.core.model import InvalidInput, Problem
    from swanmesh.pki.describe import describe
    from swanmesh.pki.reading import read_certificates

    path = file or setup.config.credentials.certificate
    try:
        found = read_certificates(read_input(path))
    except ValueError as error:
        raise InvalidInput(Problem(str(path), "", "", str(error), "give one in PEM or DER")) from None
    now = time.time()
    facts = [describe(certificate, now=now) for certificate in found]
    if as_json:
        say_json(facts)
        return
    for place, one in enumerate(facts):
        say(*([""] if place else []), *lines(one, now))


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
    for word, text in (
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
