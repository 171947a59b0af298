"""Revocation lists as authorities make them, right and wrong: each is refused or taken, by a written rule."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swanmesh.core.credentials.revocation import RevocationList
from swanmesh.core.model import InvalidInput
from swanmesh.pki.revocation import LIMIT, authority_id, read_lists
from swanmesh.pki.seen import Voucher
from tests.unit.pki.certify import NOW, Certified, authority, certify, der, key

ROOT = authority(usage=["key_cert_sign", "crl_sign"])
STRANGER = authority(private=key("p256", 7))
SAME_NAME = authority(private=key("p256", 8), usage=["key_cert_sign", "crl_sign"])
NO_LISTS = authority(private=key("p256", 9), usage=["key_cert_sign"])
STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.1"), b"\x05\x00")


def entry(serial: int, *more: x509.ExtensionType, critical: bool = False) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW)
    for one in more:
        builder = builder.add_extension(one, critical=critical)
    return builder.build()


def make(
    *entries: x509.RevokedCertificate,
    by: Certified = ROOT,
    number: int | None = 5,
    start: datetime = NOW - timedelta(hours=1),
    end: datetime = NOW + timedelta(days=30),
    more: x509.ExtensionType | None = None,
    critical: bool = True,
    names: Certified | None = None,
) -> bytes:
    """A list in DER. `names`: whose key it names as its authority's."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(by.certificate.subject)
        .last_update(start)
        .next_update(end)
    )
    named = x509.AuthorityKeyIdentifier.from_issuer_public_key((names or by).certificate.public_key())  # type: ignore[arg-type]
    builder = builder.add_extension(named, critical=False)
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    if more is not None:
        builder = builder.add_extension(more, critical=critical)
    for one in entries:
        builder = builder.add_revoked_certificate(one)
    return builder.sign(by.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def with_sha1(data: bytes) -> bytes:
    """The same list, signed with a digest that no library signs with any more."""
    algorithm, old = bytes.fromhex("300906072a8648ce3d0401"), bytes.fromhex("300a06082a8648ce3d040302")
    tbs = x509.load_der_x509_crl(data).tbs_certlist_bytes.replace(old, algorithm)
    tbs = der(0x30, tbs[tbs.index(b"\x02\x01\x01") :])
    signature = ROOT.key.sign(tbs, ec.ECDSA(hashes.SHA1()))  # noqa: S303
    return der(0x30, tbs + algorithm + der(0x03, b"\0" + signature))


def armoured(data: bytes) -> bytes:
    return x509.load_der_x509_crl(data).public_bytes(serialization.Encoding.PEM)


def read(data: bytes, *trusted: Certified) -> list[RevocationList]:
    authorities = [one.der for one in trusted or (ROOT,)]
    return read_lists(data, "crl.pem", authorities, now=NOW.timestamp())


def scope(**what: Any) -> x509.IssuingDistributionPoint:
    return x509.IssuingDistributionPoint(
        **{
            "full_name": None,
            "relative_name": None,
            "only_contains_user_certs": False,
            "only_contains_ca_certs": False,
            "only_some_reasons": None,
            "indirect_crl": False,
            "only_contains_attribute_certs": False,
            **what,
        }
    )


GOOD = make(entry(7), entry(1 << 158, x509.CRLReason(x509.ReasonFlags.key_compromise)))
NESTED = bytes(0)
for _ in range(2000):
    NESTED = der(0x30, NESTED)


def test_what_stands_in_a_list() -> None:
    (one,) = read(GOOD)
    assert (one.number, set(one.revoked), one.issuer) == (5, {7, 1 << 158}, authority_id(ROOT.certificate))
    assert one.issued == (NOW - timedelta(hours=1)).timestamp()
    assert one.expires == (NOW + timedelta(days=30)).timestamp()


@pytest.mark.parametrize(
    "data",
    [
        armoured(GOOD),
        b"text\xff\0 before\n" + armoured(GOOD) + b"and after\n",
        ROOT.pem + armoured(GOOD).replace(b"\n", b"\r\n") + ROOT.pem,
        make(entry(7), number=None),
        make(entry(7, x509.CRLReason(x509.ReasonFlags.certificate_hold))),
        make(entry(7), more=scope(only_contains_user_certs=True)),
        make(entry(7), more=STRANGE, critical=False),
        make(entry(7, STRANGE)),
        make(entry(7), start=NOW - timedelta(days=9), end=NOW - timedelta(days=1)),
        make(entry(7), start=NOW + timedelta(minutes=4)),
        make(entry(7), end=datetime(9999, 12, 31, 23, 59, 59)),
        make(entry(7), start=datetime(1955, 1, 1)),
    ],
    ids=[
        *("pem", "text-around", "bundle", "no-number", "hold", "hosts-only", "strange", "strange-entry"),
        *("past-its-date", "clock-behind", "9999", "1955"),
    ],
)
def test_what_is_taken(data: bytes) -> None:
    assert 7 in read(data)[0].revoked


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must hold 1 to 16"),
        (b"text and no list", "must hold 1 to 16"),
        (armoured(GOOD) * 17, "must hold 1 to 16"),
        (NESTED, "holds no revocation list that can be read"),
        (ROOT.der, "holds no revocation list that can be read"),
        (GOOD[:-1], "holds no revocation list that can be read"),
        (GOOD + b"\0", "holds no revocation list that can be read"),
        (armoured(GOOD)[:200] + armoured(GOOD)[210:], "holds no revocation list that can be read"),
        (bytes(LIMIT + 1), "is larger than 8 MiB"),
        (make(entry(7), by=STRANGER), "is signed by none of credentials.authorities"),
        (make(entry(7), by=SAME_NAME), "is signed by none of credentials.authorities"),
        (GOOD[:-3] + bytes(3), "is signed by none of credentials.authorities"),
        (with_sha1(GOOD), "digest that no longer proves anything"),
        (make(entry(7), more=STRANGE), "critical extension that nobody here understands"),
        (make(entry(7), more=x509.DeltaCRLIndicator(1)), "is a delta list"),
        (make(entry(7), more=scope(indirect_crl=True)), "is a partial or indirect list"),
        (make(entry(7), more=scope(only_contains_ca_certs=True)), "is a partial or indirect list"),
        (
            make(entry(7), more=scope(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise}))),
            "is a partial or indirect list",
        ),
        (
            make(entry(7, x509.CertificateIssuer([x509.DNSName("ca.mesh.example")]), critical=True)),
            "has entries of another authority",
        ),
        (make(entry(7, STRANGE, critical=True)), "has entries of another authority"),
        (make(entry(7), start=NOW + timedelta(minutes=6)), "is not valid before"),
        (make(entry(7), names=STRANGER), "does not name its authority's key"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(data)


def test_an_authority_that_may_not_sign_lists() -> None:
    with pytest.raises(InvalidInput, match="lacks cRLSign"):
        read(make(entry(7), by=NO_LISTS), NO_LISTS)


def test_several_authorities_in_one_file() -> None:
    data = armoured(make(entry(8), by=SAME_NAME)) + armoured(GOOD)
    found = {one.issuer: set(one.revoked) for one in read(data, ROOT, SAME_NAME)}
    assert found[authority_id(SAME_NAME.certificate)] == {8}
    assert 7 in found[authority_id(ROOT.certificate)]


_AKI = x509.AuthorityKeyIdentifier.from_issuer_public_key(ROOT.certificate.public_key())  # type: ignore[arg-type]
NAMED = der(0xA0, der(0x30, der(0x30, b"\x06\x03\x55\x1d\x23" + der(0x04, _AKI.public_bytes()))))


def many(count: int) -> bytes:
    """A list of so many. Written by hand, as the library takes minutes for it (RFC 5280 §5.1)."""
    moment = der(0x17, b"260601000000Z")
    reason = bytes.fromhex("300c300a0603551d1504030a0104")
    entries = (
        der(0x30, der(0x02, ((1 << 158) + n).to_bytes(20, "big")) + moment + reason) for n in range(count)
    )
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    head = der(0x02, b"\1") + algorithm + ROOT.certificate.subject.public_bytes()
    tbs = der(0x30, head + moment + der(0x17, b"260701000000Z") + der(0x30, b"".join(entries)) + NAMED)
    signature = ROOT.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return der(0x30, tbs + algorithm + der(0x03, b"\0" + signature))


def test_a_hundred_thousand_entries_take_bounded_time_and_memory() -> None:
    few, large = many(1000), many(100_000)

    def took(data: bytes) -> float:
        began = time.process_time()
        read(data)
        return time.process_time() - began

    assert took(large) < 1000 * min(took(few) for _ in range(3)), "no more than in proportion, tenfold"
    tracemalloc.start()
    (one,) = read(large)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(one.revoked) == 100_000
    assert most < 20 * len(large)


def test_one_more_is_refused() -> None:
    with pytest.raises(InvalidInput, match="more than 100000 entries"):
        read(many(100_001))


class TestVoucher:
    """Which of the certificates that charon shows say anything of a peer."""

    MIDDLE = authority("middle", ROOT, private=key("p256", 2))
    FALSE = authority("root", private=key("p256", 3))

    @pytest.mark.parametrize(
        ("shown", "count"),
        [
            ([certify("a", ROOT)], 1),
            ([certify("a", MIDDLE), MIDDLE], 1),
            ([certify("a", MIDDLE)], 0),
            ([certify("a", FALSE), FALSE], 0),
            ([certify("a", STRANGER)], 0),
            ([certify("a")], 0),
            ([certify("a", ROOT, names=None)], 0),
            ([ROOT], 0),
        ],
        ids=[
            "ours",
            "over-one-between",
            "without-that",
            "of-the-same-name",
            "stranger",
            "self",
            "nameless",
            "root",
        ],
    )
    def test_who_has_an_authority_behind_it(self, shown: Sequence[Certified], count: int) -> None:
        vouch = Voucher(lambda: (ROOT.der,))
        for _ in range(2):  # what was seen once may be known
            assert len(vouch([one.der for one in shown])) == count

    def test_what_cannot_be_read_hides_nothing(self) -> None:
        good = certify("a", ROOT, serial=12)
        (seen,) = Voucher(lambda: (ROOT.der,))([b"", NESTED, good.der[:-1], good.der])
        assert (seen.serial, seen.issuer) == (12, authority_id(ROOT.certificate))

    def test_with_other_authorities_others_count(self) -> None:
        trusted = [(ROOT.der,)]
        vouch = Voucher(lambda: trusted[0])
        shown = [certify("a", ROOT).der, certify("a", STRANGER).der]
        assert len(vouch(shown)) == 1
        trusted[0] = (STRANGER.der,)
        (seen,) = vouch(shown)
        assert seen.issuer == authority_id(STRANGER.certificate)
