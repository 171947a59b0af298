"""A host gets its certificate: what does not fit changes nothing, and a kill anywhere leaves a whole pair."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from swanmesh.core.model import Credentials, InvalidInput
from swanmesh.pki.certificates import load_credentials
from swanmesh.pki.enrolment import Place, install, request
from swanmesh.pki.request import read_request
from tests.unit.pki.certify import HOST, NOW, Certified, authority, certify, key, put
from tests.unit.pki.killing import killed_everywhere

ROOT = authority()
MIDDLE = authority("middle", ROOT, private=key("p256", 2))
LOW = authority("low", MIDDLE, private=key("p256", 3))
STRANGER = authority("stranger", private=key("p256", 4))
NOW_SECONDS = NOW.timestamp()
ADDRESSES = (ip_address("203.0.113.1"), ip_address("2001:db8::1"))
SANS = [x509.IPAddress(address) for address in ADDRESSES]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "pki"
    folder.mkdir(mode=0o700)
    return Place(
        name=HOST,
        addresses=ADDRESSES,
        certificate=folder / "host.pem",
        private_key=folder / "host.key",
        authorities=(folder / "ca.pem",),
    )


def asked(place: Place) -> x509.CertificateSigningRequest:
    return x509.load_pem_x509_csr(request(place, "p256", now=NOW_SECONDS))


def answer(place: Place, issuer: Certified = ROOT, **options: object) -> Certified:
    """The certificate that an authority gives for this host's request."""

    class Public:
        public_key = staticmethod(asked(place).public_key)

    return certify("a", issuer, **{"private": Public, "others": SANS, **options})  # type: ignore[arg-type]


def take(place: Place, *certificates: Certified) -> x509.Certificate:
    return install(place, b"".join(one.pem for one in certificates), "answer", now=NOW_SECONDS)


def credentials(place: Place) -> Credentials:
    """As the service reads them."""
    return load_credentials(
        place.certificate, place.private_key, place.authorities, name=place.name, now=NOW_SECONDS
    )


def contents(place: Place) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.private_key.parent.iterdir()}


@pytest.mark.parametrize("kind", ["p256", "ed25519", "rsa"])
def test_from_request_to_credentials(place: Place, kind: str) -> None:
    data = request(place, kind, now=NOW_SECONDS)
    wanted = read_request(data, "-")
    assert (wanted.name, wanted.addresses) == (HOST, ADDRESSES)
    (waiting,) = place.private_key.parent.iterdir()
    assert waiting.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in data
    host = answer(place)
    assert take(place, host, ROOT) == host.certificate
    assert credentials(place).certificate == host.der
    modes = {path.name: path.stat().st_mode & 0o777 for path in place.private_key.parent.iterdir()}
    assert modes == {"host.pem": 0o644, "host.key": 0o600, "ca.pem": 0o644}


def test_a_request_asked_for_twice_is_for_one_key(place: Place) -> None:
    first, second = asked(place), asked(place)
    assert first.public_key() == second.public_key()
    take(place, answer(place), ROOT)
    assert asked(place).public_key() != first.public_key()


def test_a_new_key_does_not_touch_the_one_in_use(place: Place) -> None:
    old = answer(place)
    take(place, old, ROOT)
    new = answer(place)
    assert credentials(place).certificate == old.der
    before = credentials(place).private_key
    take(place, new)
    assert credentials(place).certificate == new.der
    assert credentials(place).private_key != before


def test_a_certificate_for_the_key_in_use_is_taken(place: Place) -> None:
    take(place, old := answer(place), ROOT)

    class Public:
        public_key = staticmethod(old.certificate.public_key)

    take(place, new := certify("b", ROOT, private=Public, others=SANS))
    assert credentials(place).certificate == new.der


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2), (1, 1, 2, 3, 0, 0)])
def test_certificates_of_others_install_in_any_order(place: Place, order: Sequence[int]) -> None:
    together = [answer(place, LOW), LOW, MIDDLE, ROOT]
    text = b"\nSubject: text between\n".join(together[number].pem for number in order)
    install(place, text, "answer", now=NOW_SECONDS)
    assert credentials(place).certificate == together[0].der
    assert place.certificate.read_bytes().startswith(together[0].pem)
    assert place.authorities[0].read_bytes() == ROOT.pem


def test_der_is_taken_where_the_authority_is_known(place: Place) -> None:
    put(place.authorities[0], ROOT.pem, 0o644)
    install(place, answer(place).der, "answer", now=NOW_SECONDS)
    assert credentials(place)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"private": key("p256", 8)}, "belongs to neither the key that waits"),
        ({"names": ["web2.mesh.example"]}, "does not hold the host's name"),
        ({"others": SANS[:1]}, "2001:db8::1 of host.addresses is not among them"),
        ({"end": NOW - timedelta(seconds=1)}, "expired"),
        ({"issuer": STRANGER}, "was issued by none of credentials.authorities"),
        ({"issuer": MIDDLE}, "was issued by none of credentials.authorities"),
        ({"strange": True}, "critical extension"),
        ({"ca": True}, "holds 1 certificates, 0 of hosts"),
    ],
)
def test_what_does_not_fit_changes_nothing(place: Place, options: dict[str, object], message: str) -> None:
    take(place, answer(place), ROOT)
    bad = answer(place, **options)  # type: ignore[arg-type]
    before = contents(place)
    with pytest.raises(InvalidInput, match=message):
        take(place, bad)
    assert contents(place) == before


def test_what_is_no_answer_changes_nothing(place: Place) -> None:
    host = answer(place)
    before = contents(place)
    others = [authority(f"ca{number}", private=key("p256", 1)) for number in range(16)]
    for given, message in (
        ([], "holds no certificate that can be read"),
        ([ROOT], "holds 1 certificates, 0 of hosts"),
        ([host, certify("b", ROOT)], "holds 2 certificates, 2 of hosts"),
        ([host, *others], "holds 17 certificates, 1 of hosts"),
    ):
        with pytest.raises(InvalidInput, match=message):
            take(place, *given)
    assert contents(place) == before


def test_an_authority_that_is_there_is_never_changed(place: Place) -> None:
    put(place.authorities[0], ROOT.pem, 0o644)
    host = answer(place, STRANGER)
    before = contents(place)
    with pytest.raises(InvalidInput, match="was issued by none of"):
        take(place, host, STRANGER)
    assert contents(place) == before
    take(place, answer(place), STRANGER, ROOT)
    assert place.authorities[0].read_bytes() == ROOT.pem


def test_an_authority_is_not_made_up_of_what_is_no_root(place: Place) -> None:
    with pytest.raises(InvalidInput, match=r"ca\.pem: .*cannot be read"):
        take(place, answer(place, MIDDLE), MIDDLE)
    assert set(contents(place)) == {"host.key.pending"}


def test_killed_anywhere_a_first_installation_can_be_done_again(place: Place) -> None:
    for _ in killed_everywhere(lambda: request(place, "p256", now=NOW_SECONDS)):
        left = [path.name for path in place.private_key.parent.iterdir()]
        assert left in ([], ["host.key.pending"]), "no key under a temporary name"
    host = answer(place)
    for _ in killed_everywhere(lambda: take(place, host, ROOT)):
        if place.certificate.exists():
            assert credentials(place).certificate == host.der
    take(place, host, ROOT)
    assert credentials(place).certificate == host.der
    assert set(contents(place)) == {"host.pem", "host.key", "ca.pem"}


def test_killed_anywhere_a_new_pair_or_the_old_one_works(place: Place) -> None:
    take(place, old := answer(place), ROOT)
    new = answer(place)
    pair = contents(place)
    seen = set()
    for _ in killed_everywhere(lambda: take(place, new)):
        seen.add(credentials(place).certificate)
        if len(seen) == 2 and place.private_key.read_bytes() == pair["host.key"]:
            # Killed between the two: what comes next completes it before it makes another key.
            assert asked(place).public_key() != new.certificate.public_key()
            assert credentials(place).certificate == new.der
        for name, content in pair.items():
            put(place.private_key.parent / name, content, 0o600)
    assert seen == {old.der, new.der}


def test_a_key_that_waits_but_will_not_do_is_told(place: Place) -> None:
    put(place.private_key.with_name("host.key.pending"), b"rubbish")
    with pytest.raises(InvalidInput, match=r"host\.key\.pending: .*holds no private key that can be read"):
        request(place, "p256", now=NOW_SECONDS)


def test_no_key_is_made_where_others_may_write(place: Place) -> None:
    folder = place.private_key.parent
    folder.chmod(0o777)
    with pytest.raises(InvalidInput, match=f"run: chmod go-w {folder}"):
        request(place, "p256", now=NOW_SECONDS)
    assert list(folder.iterdir()) == []


def test_nothing_is_installed_where_others_may_write(place: Place, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    place = dataclasses.replace(place, authorities=(shared / "ca.pem",))
    with pytest.raises(InvalidInput, match=f"run: chmod go-w {shared}"):
        take(place, answer(place), ROOT)
    assert list(shared.iterdir()) == []
    assert set(contents(place)) == {"host.key.pending"}
