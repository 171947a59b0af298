"""An authority with thousands of certificates, and what it takes until one that was revoked is out.

Of a mesh the one host is measured: a fake charon shows each peer's certificate as it comes up.
"""

from __future__ import annotations

import ipaddress
import queue
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from bench.processes import SWANMESH, Service, fake_charon, service, timed
from bench.results import Line, Results, verdict
from bench.site import Site, build
from swanmesh.core.events import MeshEvent
from swanmesh.pki.authority import Authority
from swanmesh.pki.keys import KINDS
from swanmesh.pki.reading import pem
from swanmesh.pki.record import Record
from swanmesh.pki.revocation import read_lists

_Told = queue.SimpleQueue[tuple[float, MeshEvent]]
ENTRIES = 10_000
_DAY = 86400.0
_FIRST = ipaddress.IPv6Address("2001:db8:2::")
_AT_ONCE = 2.0
"""Seconds from a list's arrival to the end of who is on it, at most."""
_TIMES = 5


def measure(results: Results, folder: Path, count: int, rounds: int) -> None:
    """`count` peers and as many certificates, but never more than the 10,000 that are asked for."""
    issued = min(2 * count, ENTRIES)
    _authority(results, folder / "authority", issued, rounds)
    _lists(results, folder / "lists", rounds)
    _end(results, folder / "revoke", count)


def _authority(results: Results, folder: Path, count: int, rounds: int) -> None:
    """Whole commands, from start to exit."""
    authority = Authority.create(folder, "Bench CA", now=time.time())
    record = Record(folder)
    public = KINDS["p256"]().public_key()
    with record.writing():
        for number in range(count):
            made = authority.certify(public, f"p{number}.mesh.example", [_FIRST + number], now=time.time())
            # The record's own way brings each of them to the disk.
            record.change(made).path.write_bytes(pem(made))
    names = iter(range(1_000_000))

    def run(*words: str) -> float:
        return timed((*SWANMESH, "ca", *words, "--directory", str(folder)))

    def medians(*words: str, name: bool = False) -> float:
        return statistics.median(
            run(*words, *((f"p{next(names)}.mesh.example",) if name else ())) for _ in range(rounds)
        )

    new = ipaddress.IPv6Address("2001:db8:3::")
    issue = statistics.median(run("issue", f"n{n}.mesh.example", str(new + n)) for n in range(rounds))
    results.add(
        f"an authority that has issued {count:,} certificates",
        Line(what="ca issue", ours=issue),
        Line(what="ca list", ours=medians("list")),
        Line(what="ca revoke NAME", ours=medians("revoke", name=True)),
        Line(what="ca crl", ours=medians("crl")),
    )


def _signed(authority: Authority, serials: Sequence[int], number: int) -> bytes:
    now = time.time()
    start = authority.certificate.not_valid_before_utc
    entries = (
        x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start).build()
        for serial in serials
    )
    made = authority.revocation_list(entries, number=number, now=now, lifetime=30 * _DAY)
    return made.public_bytes(serialization.Encoding.PEM)


def _lists(results: Results, folder: Path, rounds: int) -> None:
    authority = Authority.create(folder, "Bench CA", now=time.time())
    trusted = [authority.certificate.public_bytes(serialization.Encoding.DER)]
    data = _signed(authority, _strangers(ENTRIES), 1)
    took = []
    for _ in range(rounds):
        began = time.process_time()
        read_lists(data, "crl.pem", trusted, now=time.time())
        took.append(time.process_time() - began)
    what = f"a revocation list of {ENTRIES:,}"
    results.add(
        what,
        Line(what="read and checked, processor time", ours=statistics.median(took)),
        Line(what="its size as PEM", ours=len(data) / 1024, unit="KiB"),
    )


def _end(results: Results, folder: Path, count: int) -> None:
    """From the list in its place to the request that ends who is on it."""
    credentials = {
        "certificate": "pki/host.pem",
        "private_key": "pki/host.key",
        "authorities": ["pki/ca.pem"],
        "crls": ["pki/crl.pem"],
    }
    site = build(folder, count, credentials=credentials)
    authority = Authority.load(site.folder / "pki")
    shown = _issue(authority, site)
    known: list[int] = []
    for kind, others in (("one", 0), (f"{ENTRIES:,}", ENTRIES)):
        _put(site, _signed(authority, _strangers(others), 1))
        with fake_charon(site, shown) as process, service(site, process) as running:
            running.await_loads(count + 1)
            running.await_up()
            known = _known(running)
            with running.events() as told:
                took = [*_revoke(site, authority, told, known[:_TIMES], others)]
        for path in (site.folder / "state/crls").iterdir():
            path.unlink()
        slowest = max(took)
        results.add(
            f"a certificate revoked, of {count:,} peers that are up",
            Line(
                what=f"from a list of {kind} in its place to the peer's end",
                ours=slowest,
                goal=f"at most {_AT_ONCE:g} s",
                met=verdict(count, slowest <= _AT_ONCE),
                note=f"the slowest of {_TIMES}, one after the other",
            ),
        )
    results.add(
        f"a certificate revoked, of {count:,} peers that are up",
        Line(what="certificates that are known when all have just come up", ours=len(known), unit=""),
    )


def _strangers(count: int) -> range:
    """Serial numbers of nobody's here."""
    return range(1 << 158, (1 << 158) + count)


def _known(running: Service) -> list[int]:
    """Serial numbers of the certificates that are known: charon may forget one before it is asked."""
    held = (each.certificate for peer in running.client.status().peers for each in peer.associations)
    return [int(serial, 16) for serial in held if serial]


def _issue(authority: Authority, site: Site) -> Path:
    """A certificate for each peer, all of one key, in one file."""
    public = KINDS["p256"]().public_key()
    path = site.folder / "shown.pem"
    with path.open("wb") as out:
        for peer in site.peers:
            out.write(pem(authority.certify(public, peer.name, peer.addresses, now=time.time())))
    return path


def _revoke(
    site: Site, authority: Authority, told: _Told, known: Sequence[int], others: int
) -> Iterator[float]:
    """One peer more with each list."""
    serials = [*_strangers(others)]
    for number, serial in enumerate(known, 2):
        serials.append(serial)
        data = _signed(authority, serials, number)
        began = time.monotonic()
        _put(site, data)
        while True:
            at, event = told.get(timeout=60)
            if event.kind == "revocation-held" or at > began + 60:
                raise RuntimeError(f"nobody was ended: {event.reason}")
            if event.kind == "action" and event.details["action"] == "terminate":
                yield at - began
                break


def _put(site: Site, data: bytes) -> None:
    draft = site.folder / "pki/.crl"
    draft.write_bytes(data)
    draft.replace(site.folder / "pki/crl.pem")
