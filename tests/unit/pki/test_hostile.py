"""Certificates and requests as nobody should make them: each is refused or taken, by a written rule."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from swanmesh.core.model import InvalidInput
from swanmesh.pki.certificates import load_credentials
from tests.unit.pki.certify import HOST, NOW, Certified, altered, authority, certify, der, key, put

ROOT = authority()
MIDDLE = authority("middle", ROOT, private=key("p256", 2))
LOW = authority("low", MIDDLE, private=key("p256", 3))
NARROW = authority(private=key("p256", 4), path_length=0)
BELOW_NARROW = authority("middle", NARROW, private=key("p256", 2))
PLAIN = certify("a", ROOT)
SERIAL = certify("a", ROOT, serial=0x55AA55AA55AA55AA)
NESTED = bytes(0)
for _ in range(2000):
    NESTED = der(0x30, NESTED)
FAR = certify("a", ROOT, end=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
NEVER_BEGUN = certify("a", ROOT, end=NOW + timedelta(hours=7))


def judge(
    folder: Path, data: bytes, private: bytes | None = None, roots: Sequence[Certified] = (ROOT,)
) -> str:
    """What is wrong with a host's file of certificates; empty if it is taken."""
    files = (
        put(folder / "host.pem", data, 0o644),
        put(folder / "host.key", PLAIN.key_bytes() if private is None else private),
        [put(folder / f"ca{number}.pem", one.pem, 0o644) for number, one in enumerate(roots)],
    )
    try:
        load_credentials(*files, name=HOST, now=NOW.timestamp())
    except InvalidInput as invalid:
        return str(invalid)
    return ""


def openssl(folder: Path, certificate: bytes, roots: Sequence[Certified], chain: Sequence[Certified]) -> bool:
    """Whether `openssl verify` takes the certificate at NOW."""
    put(folder / "leaf.pem", certificate)
    put(folder / "roots.pem", b"".join(one.pem for one in roots))
    put(folder / "chain.pem", b"".join(one.pem for one in chain))
    command = ["openssl", "verify", "-attime", str(int(NOW.timestamp()))]
    files = ["-CAfile", "roots.pem", *(["-untrusted", "chain.pem"] if chain else []), "leaf.pem"]
    return not subprocess.run(
        [*command, *files], cwd=folder, capture_output=True, timeout=60, check=False
    ).returncode


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (NESTED, "holds no certificate that can be read"),
        (der(0x30, der(0x30, bytes(900_000))), "holds no certificate that can be read"),
        (PLAIN.pem + bytes(1024 * 1024), "is larger than 1 MiB"),
        (PLAIN.der[:-1], "holds no certificate that can be read"),
        (PLAIN.der + b"\0", "holds no certificate that can be read"),
        (PLAIN.pem[:200] + PLAIN.pem[210:], "holds no certificate that can be read"),
        (certify("a", ROOT, names=["*.mesh.example"]).pem, "does not hold the host's name"),
        (certify("a", ROOT, names=[f"{HOST}\0.evil.example"]).pem, "does not hold the host's name"),
        (certify("a", ROOT, names=["xn--web1-loa.mesh.example"]).pem, "does not hold the host's name"),
        (
            altered(certify("a", ROOT, names=["wXb1.mesh.example"]), ROOT, b"wXb1.mesh", b"w\xe9b1.mesh").pem,
            "holds no certificate that can be read",
        ),
        (certify("a", ROOT, strange=True).pem, "critical extension that nobody here understands"),
        (
            altered(
                SERIAL, ROOT, b"\x55\xaa\x55\xaa\x55\xaa\x55\xaa", b"\xd5\xaa\x55\xaa\x55\xaa\x55\xaa"
            ).pem,
            "serial number that is not positive",
        ),
        (
            altered(NEVER_BEGUN, ROOT, b"260601070000Z", b"600101000000Z").pem,
            "expired on 1960-01-01 00:00 UTC",
        ),
        (certify("a", ROOT, private=key("p256", 8)).pem, "does not belong to the certificate"),
        (ROOT.pem + PLAIN.pem, "is an authority's certificate"),
        (b"text and no certificate", "holds no certificate that can be read"),
    ],
)
def test_what_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in judge(tmp_path, data)


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.der,
        b"Subject: a\n" + PLAIN.pem + b"\nIssuer: \xff\xfe\0 anything\n" + MIDDLE.pem + b"the end",
        PLAIN.key_bytes() + PLAIN.pem,
        PLAIN.pem.replace(b"\n", b"\r\n"),
        certify("a", ROOT, names=[HOST, "*.mesh.example", "web9.mesh.example\0"]).pem,
        certify("a", ROOT, strange=False).pem,
        certify("\N{SNOWMAN}", ROOT).pem,
        FAR.pem,
        certify("a", ROOT, start=datetime(1955, 1, 1, tzinfo=UTC)).pem,
    ],
)
def test_what_is_taken(tmp_path: Path, data: bytes) -> None:
    assert judge(tmp_path, data) == ""


@pytest.mark.parametrize(
    ("leaf", "roots", "chain", "good"),
    [
        (PLAIN, [ROOT], [], True),
        (certify("a", MIDDLE), [ROOT], [MIDDLE], True),
        (certify("a", LOW), [ROOT], [MIDDLE, LOW], True),
        (certify("a", LOW), [ROOT], [LOW, MIDDLE], True),
        (certify("a", LOW), [ROOT], [LOW], False),
        (certify("a", NARROW), [NARROW], [], True),
        (certify("a", BELOW_NARROW), [NARROW], [BELOW_NARROW], False),
        (certify("a", PLAIN), [ROOT], [PLAIN], False),
        (certify("a", ROOT, strange=True), [ROOT], [], False),
        (certify("a", ROOT, strange=False), [ROOT], [], True),
        (certify("a", ROOT, end=NOW - timedelta(seconds=1)), [ROOT], [], False),
        (certify("a", ROOT, start=NOW + timedelta(seconds=1)), [ROOT], [], False),
        (FAR, [ROOT], [], True),
        (PLAIN, [authority(private=key("p256", 7))], [], False),
    ],
)
def test_openssl_agrees(
    tmp_path: Path, leaf: Certified, roots: list[Certified], chain: list[Certified], good: bool
) -> None:
    assert (judge(tmp_path, b"".join(one.pem for one in (leaf, *chain)), roots=roots) == "") is good
    assert openssl(tmp_path, leaf.pem, roots, chain) is good
