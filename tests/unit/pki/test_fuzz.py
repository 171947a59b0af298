"""Whatever is fed to what reads certificates, requests, lists and keys: it is taken, or refused in our words.

`corpus/` has a sample of what mutation has come up with, one for each way in which something is refused, and
whatever else was found to be of interest; it grows by hand. FUZZ_SECONDS=600 goes on for longer.
"""

from __future__ import annotations

import os
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from swanmesh.core.model import InvalidInput
from swanmesh.pki.describe import describe
from swanmesh.pki.keys import Encrypted, read_key
from swanmesh.pki.reading import read_certificates
from swanmesh.pki.request import read_request
from swanmesh.pki.revocation import read_lists
from swanmesh.pki.seen import Voucher
from tests.unit.pki import test_hostile, test_revocation
from tests.unit.pki.certify import NOW, certify, der, key
from tests.unit.pki.mutating import mutated
from tests.unit.pki.test_revocation import ROOT

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
_ECDSA = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256, RFC 5758 §3.2
_VOUCHER = Voucher(lambda: (ROOT.der,))


def certificates(data: bytes) -> None:
    try:
        read = read_certificates(data)
    except ValueError as error:
        assert str(error).startswith("holds ")
    else:
        for one in read:
            describe(one, now=NOW.timestamp())
    _VOUCHER([data])


def request(data: bytes) -> None:
    with_problems(lambda: read_request(data, "new.csr"))


def lists(data: bytes) -> None:
    with_problems(lambda: read_lists(data, "crl.pem", [ROOT.der], now=NOW.timestamp()))


def private_key(data: bytes) -> None:
    try:
        read_key(data)
    except Encrypted:
        pass
    except ValueError as error:
        assert str(error).isprintable()


def with_problems(read: Callable[[], object]) -> None:
    """Refused in one line that people can read, or taken."""
    try:
        read()
    except InvalidInput as invalid:
        assert all(problem.message and problem.remedy for problem in invalid.problems)
        assert str(invalid).replace("\n", "").isprintable()


READERS = (certificates, request, lists, private_key)


def signed(tbs: bytes) -> bytes:
    """These bytes as a certificate or list of ROOT's, so that more than the signature is looked at."""
    signature = ROOT.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return der(0x30, tbs + _ECDSA + der(0x03, b"\0" + signature))


FULL = certify(
    "a",
    ROOT,
    others=[test_hostile.ADDRESS],
    purposes=[x509.ObjectIdentifier("1.3.6.1.5.5.7.3.17")],
    usage=["digital_signature"],
    path_length=None,
    strange=False,
)
LIST = test_revocation.make(
    test_revocation.entry(7, x509.CRLReason(x509.ReasonFlags.superseded)),
    more=test_revocation.scope(only_contains_user_certs=True),
)
SEEDS: list[tuple[Callable[[bytes], None], bytes, Callable[[bytes], bytes]]] = [
    (certificates, FULL.der, bytes),
    (certificates, certify("a", ROOT, private=key("ed25519")).der, bytes),
    (certificates, certify("a", ROOT, private=key("rsa2048")).der, bytes),
    (certificates, FULL.certificate.tbs_certificate_bytes, signed),
    (request, test_hostile.GOOD, bytes),
    (lists, LIST, bytes),
    (lists, x509.load_der_x509_crl(LIST).tbs_certlist_bytes, signed),
    (private_key, FULL.key_bytes(encoding="DER"), bytes),
    (private_key, FULL.key_bytes("TraditionalOpenSSL", encoding="DER"), bytes),
]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus(path: Path) -> None:
    data = path.read_bytes()
    for read in READERS:
        read(data)


def fuzz(seed: int) -> None:
    chance = random.Random(seed)
    read, data, finish = chance.choice(SEEDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read(finish(mutated(data, chance)))


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 1 << 62))
def test_der_that_was_meant_for_something_else(seed: int) -> None:
    fuzz(seed)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, len(SEEDS) - 1),
    st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=6)), max_size=4),
)
def test_octets_changed_anywhere(which: int, changes: list[tuple[int, bytes]]) -> None:
    read, data, finish = SEEDS[which]
    for start, octets in changes:
        place = start % (len(data) + 1)
        data = data[:place] + octets + data[place + len(octets) :]
    read(finish(data))


@given(st.binary(max_size=2000))
def test_anything_at_all(data: bytes) -> None:
    for label in (b"CERTIFICATE", b"CERTIFICATE REQUEST", b"X509 CRL", b"PRIVATE KEY"):
        for read in READERS:
            read(b"-----BEGIN " + label + b"-----\n" + data + b"\n-----END " + label + b"-----\n")
    for read in READERS:
        read(data)


@pytest.mark.skipif("FUZZ_SECONDS" not in os.environ, reason="the long run: FUZZ_SECONDS=600")
def test_for_as_long_as_one_likes() -> None:
    end, seed = time.monotonic() + float(os.environ["FUZZ_SECONDS"]), random.SystemRandom().getrandbits(60)
    while time.monotonic() < end:
        seed += 1
        try:
            fuzz(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
