"""OpenSSL's `verify` and strongSwan's `pki --verify` say of certificates and revocation lists what we say."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from swanmesh.core.model import InvalidInput
from swanmesh.pki.certificates import load_credentials
from swanmesh.pki.revocation import read_lists
from tests.unit.pki.certify import HOST, Certified, altered, authority, certify, key, put
from tests.unit.pki.test_revocation import armoured, entry, make
from tests.unit.pki.witness import openssl_takes, strongswan_takes

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
LIFE: dict[str, Any] = {"start": NOW - DAY, "end": NOW + 30 * DAY}
LIST_LIFE: dict[str, Any] = {"start": NOW - DAY, "end": NOW + DAY}
ROOT = authority(usage=["key_cert_sign", "crl_sign"], **LIFE)
STRANGER = authority(private=key("p256", 7), **LIFE)
ROOT_ENDED = authority(usage=["key_cert_sign", "crl_sign"], start=NOW - 9 * DAY, end=NOW - DAY)
GOOD = certify("a", ROOT, **LIFE)
SERIAL = certify("a", ROOT, serial=77, **LIFE)


@dataclass(frozen=True)
class Case:
    """A host's certificate below a root, perhaps with a list."""

    name: str
    good: bool
    leaf: Certified
    root: Certified = ROOT
    crl: bytes | None = None
    differs: frozenset[str] = field(default=frozenset())
    """Witnesses that are known to say otherwise, and why is said beside."""


CASES = [
    Case("good", True, GOOD),
    Case("ed25519", True, certify("a", ROOT, private=key("ed25519"), **LIFE)),
    Case("rsa", True, certify("a", ROOT, private=key("rsa2048"), **LIFE)),
    Case("until-9999", True, certify("a", ROOT, start=NOW - DAY, end=datetime(9999, 12, 31, tzinfo=UTC))),
    Case("from-1955", True, certify("a", ROOT, start=datetime(1955, 1, 1, tzinfo=UTC), end=NOW + DAY)),
    Case("ended", False, certify("a", ROOT, start=NOW - 9 * DAY, end=NOW - DAY)),
    Case("not-begun", False, certify("a", ROOT, start=NOW + DAY, end=NOW + 2 * DAY)),
    Case("a-strangers", False, certify("a", STRANGER, **LIFE)),
    Case("root-ended", False, certify("a", ROOT_ENDED, **LIFE), ROOT_ENDED),
    # Whoever is named as an anchor on its command line is one to `pki`; to charon it is not.
    Case("below-a-host", False, certify("a", GOOD, **LIFE), GOOD, differs=frozenset({"strongswan"})),
    Case("changed", False, altered(certify("abcd", ROOT, **LIFE), STRANGER, b"abcd", b"abce")),
    Case("strange", False, certify("a", ROOT, strange=True, **LIFE)),
    Case("on-no-list", True, GOOD, crl=make(entry(77), by=ROOT, **LIST_LIFE)),
    Case("revoked", False, SERIAL, crl=make(entry(77), by=ROOT, **LIST_LIFE)),
    Case("revoked-among-many", False, SERIAL, crl=make(*map(entry, range(1, 200)), by=ROOT, **LIST_LIFE)),
    # A stranger's list is passed over by `pki`, as by a service with a list of before. Here there is none.
    Case(
        "strangers-list",
        False,
        SERIAL,
        crl=make(entry(77), by=STRANGER, **LIST_LIFE),
        differs=frozenset({"strongswan"}),
    ),
]


def ours(folder: Path, case: Case) -> bool:
    files = (
        put(folder / "host.pem", case.leaf.pem, 0o644),
        put(folder / "host.key", case.leaf.key_bytes()),
        [put(folder / "ca.pem", case.root.pem, 0o644)],
    )
    try:
        mine = load_credentials(*files, name=HOST, now=time.time())
        lists = read_lists(case.crl, "crl", mine.authorities, now=time.time()) if case.crl else []
    except InvalidInput:
        return False
    return not any(one.issuer == mine.issuer and mine.serial in one.revoked for one in lists)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_say_the_same(tmp_path: Path, case: Case) -> None:
    leaf, root = put(tmp_path / "leaf.pem", case.leaf.pem), put(tmp_path / "root.pem", case.root.pem)
    crl = put(tmp_path / "crl.pem", armoured(case.crl)) if case.crl else None
    said = {"ours": ours(tmp_path, case), "openssl": openssl_takes(leaf, root, crl=crl)}
    if shutil.which("pki"):
        said["strongswan"] = strongswan_takes(leaf, root, crl=crl)
    assert said == {who: case.good is (who not in case.differs) for who in said}
