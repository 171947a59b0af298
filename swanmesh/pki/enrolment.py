"""How a host gets a certificate: its key is made here and stays, a request goes out, certificates come in.

The new key waits beside the one in use (`pending_key`). The certificate is put in place first, which makes
the waiting key the host's; then that one takes its place. So a crash at any point leaves a pair that works.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509

from swanmesh.core.model import Address, Host, InvalidInput
from swanmesh.files.lock import locked
from swanmesh.files.read import check_folder
from swanmesh.files.write import Change, sync_directory, write_whole
from swanmesh.pki.certificates import pending_key
from swanmesh.pki.judging import AUTHORITIES, CERTIFICATE, Found, Judge, belongs, judge_at
from swanmesh.pki.keys import KINDS, PrivateKey, key_pem, kind_of
from swanmesh.pki.reading import is_authority, issued, pem, read_certificates
from swanmesh.pki.request import make_request

_MOST = 16
"""Certificates that come in together: a host's, and those of its authorities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a host's credentials stand, and whom they must name."""

    name: str
    addresses: tuple[Address, ...]
    certificate: Path
    private_key: Path
    authorities: tuple[Path, ...]


class Files(Protocol):
    """Where they lie, as the configuration has it."""

    @property
    def certificate(self) -> Path: ...

    @property
    def private_key(self) -> Path: ...

    @property
    def authorities(self) -> tuple[Path, ...]: ...


def place_of(host: Host, files: Files) -> Place:
    """The place of this host's credentials."""
    return Place(
        name=host.name,
        addresses=host.addresses,
        certificate=files.certificate,
        private_key=files.private_key,
        authorities=files.authorities,
    )


def request(place: Place, kind: str | None, *, now: float) -> bytes:
    """A request for the host's name and addresses as PEM. Its key waits beside the host's private key; one
    that waits there already is used again, so that a request can be asked for twice. `kind` None makes a new
    one of the kind of the key in use.

    Raises InvalidInput if such a key will not do, or others could write there, and NotWritten.
    """
    waiting = pending_key(place.private_key)
    with locked(place.private_key.parent):
        _complete(place, now)
        if waiting.exists():
            judge = judge_at(now)
            key = judge.private_key(waiting)
            if key is None:
                raise InvalidInput(*judge.problems)
        else:
            key = KINDS[kind or kind_of(judge_at(now).private_key(place.private_key))]()
            write_whole([Change(path=waiting, content=key_pem(key), mode=0o600, replace=False)])
    return make_request(place.name, place.addresses, key)


def install(
    place: Place, data: bytes, source: str, *, now: float, outlives: bool = False
) -> x509.Certificate:
    """Put the host's certificate in place, and its key, and return it. `data` holds the certificate and any
    of its authorities, in any order.

    Of the authority's files, one that is there is never changed, and must vouch for the certificate. The only
    one, if it is not there yet, is made of the self-signed certificates that came along. `outlives`: it must
    end later than the one in use. Raises InvalidInput with all that does not fit, before anything is changed,
    and NotWritten.
    """
    with locked(place.private_key.parent):
        _complete(place, now)
        judge = judge_at(now)
        leaf, others = _sorted(judge, data, Path(source))
        roots = [one for one in others if issued(one.certificate, one.certificate)]
        chain = [one for one in others if one not in roots]
        changes, trusted = _authorities(judge, place, roots)
        if leaf is not None:
            waits = _check(judge, place, leaf, chain, trusted, now)
            if outlives:
                _check_outlives(judge, place, leaf)
        for path in (place.certificate, *place.authorities):
            if (fault := check_folder(path.parent)) is not None:
                judge.problems.append(fault)
        if judge.problems or leaf is None:
            raise InvalidInput(*sorted(set(judge.problems)))
        content = b"".join(pem(one.certificate) for one in (leaf, *chain))
        write_whole([*changes, Change(path=place.certificate, content=content)])
        if waits:
            _take_up(place)
    return leaf.certificate


def _sorted(judge: Judge, data: bytes, source: Path) -> tuple[Found | None, list[Found]]:
    """The host's certificate among those that came in, and the authorities' without repetitions."""
    try:
        found = [Found(one, source, "") for one in dict.fromkeys(read_certificates(data))]
    except ValueError as error:
        judge.problem(source, "", str(error), "give what the authority answered, in PEM or DER")
        return None, []
    hosts = [one for one in found if not is_authority(one.certificate)]
    if len(hosts) != 1 or len(found) > _MOST:
        message = f"holds {len(found)} certificates, {len(hosts)} of hosts"
        remedy = f"give the certificate of this host, and at most {_MOST - 1} of its authorities"
        judge.problem(source, "", message, remedy)
        return None, []
    return hosts[0], [one for one in found if one is not hosts[0]]


def _authorities(
    judge: Judge, place: Place, roots: Sequence[Found]
) -> tuple[list[Change], list[tuple[Found, ...]]]:
    """What must be written for the host's authorities, and the certificates of each file of them."""
    if len(place.authorities) == 1 and not place.authorities[0].exists() and roots:
        content = b"".join(pem(one.certificate) for one in roots)
        return [Change(path=place.authorities[0], content=content, replace=False)], [tuple(roots)]
    read = [
        tuple(judge.certificates(path, f"{AUTHORITIES}[{index}]"))
        for index, path in enumerate(place.authorities)
    ]
    return [], read


def _check(
    judge: Judge,
    place: Place,
    leaf: Found,
    chain: Sequence[Found],
    trusted: Sequence[tuple[Found, ...]],
    now: float,
) -> bool:
    """Whether all of it fits, as problems of the judge; and whether it is the waiting key's certificate."""
    judge.check_host(leaf, place.name)
    judge.check_addresses(leaf, place.addresses)
    anchors = [one for file in trusted for one in file]
    for one in (*chain, *anchors):
        judge.check_authority(one)
    if all(trusted):
        judge.check_chain(leaf, chain, anchors)
    waits = _fits(pending_key(place.private_key), leaf.certificate, now)
    if not waits and not _fits(place.private_key, leaf.certificate, now):
        message = "belongs to neither the key that waits for one nor the key in use"
        remedy = "run `swanmesh enroll request` here, and have its request signed"
        judge.problem(leaf.path, leaf.key, message, remedy, leaf.subject)
    return waits


def _check_outlives(judge: Judge, place: Place, leaf: Found) -> None:
    held = Judge(judge.now).certificates(place.certificate, CERTIFICATE)
    if held and held[0].validity.not_after >= leaf.validity.not_after:
        message = "ends no later than the certificate in use"
        remedy = "let the authority issue for longer; where its own end is near, have another take over"
        judge.problem(
            leaf.path, leaf.key, message, remedy, f"{leaf.certificate.not_valid_after_utc:%Y-%m-%d %H:%M}"
        )


def _complete(place: Place, now: float) -> None:
    """Finish an installation that was cut off between certificate and key."""
    found = judge_at(now).certificates(place.certificate, CERTIFICATE)
    if found and _fits(pending_key(place.private_key), found[0].certificate, now):
        _take_up(place)


def _fits(path: Path, certificate: x509.Certificate, now: float) -> bool:
    key: PrivateKey | None = judge_at(now).private_key(path)
    return key is not None and belongs(key, certificate)


def _take_up(place: Place) -> None:
    """The waiting key becomes the key in use. Nothing is copied: no second copy of a key is ever left."""
    # Where that fails, the pair is whole as it stands, and the next request or installation completes it.
    with contextlib.suppress(OSError):
        pending_key(place.private_key).replace(place.private_key)
        sync_directory(place.private_key.parent)
