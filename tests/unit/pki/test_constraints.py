"""An authority that may certify a domain and a network alone: what it issues, and what others say of that."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509

from swanmesh.core.model import InvalidInput
from swanmesh.pki.authority import Authority
from swanmesh.pki.certificates import load_credentials
from tests.unit.pki.certify import Certified, certify, key, put
from tests.unit.pki.witness import openssl_takes, strongswan_takes

PERMITTED = ["mesh.example", ip_network("203.0.113.0/24"), ip_network("2001:db8::/32")]


@pytest.fixture
def made(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", now=time.time(), permitted=PERMITTED)


@pytest.mark.parametrize(
    ("name", "address", "allowed"),
    [
        ("web1.mesh.example", "203.0.113.1", True),
        ("a.b.mesh.example", "2001:db8::1", True),
        ("mesh.example", "203.0.113.255", True),
        ("web1.amesh.example", "203.0.113.1", False),
        ("web1.mesh.example.org", "203.0.113.1", False),
        ("web1.mesh.example", "203.0.112.255", False),
        ("web1.mesh.example", "2001:db9::1", False),
    ],
)
def test_nothing_but_what_is_permitted(
    made: Authority, tmp_path: Path, name: str, address: str, allowed: bool
) -> None:
    start = datetime.now(UTC) - timedelta(hours=1)
    # What the authority itself refuses is made by hand.
    issuer = Certified(made.certificate, made.private_key)
    host = certify(
        "host",
        issuer,
        names=[name],
        others=[x509.IPAddress(ip_address(address))],
        start=start,
        end=start + timedelta(days=1),
        private=key("p256"),
    )
    put(tmp_path / "host.pem", host.pem)
    put(tmp_path / "host.key", host.key_bytes())
    root = tmp_path / "ca/ca.pem"
    if allowed:
        assert made.issue(name, [ip_address(address)], now=time.time())
        assert load_credentials(
            tmp_path / "host.pem", tmp_path / "host.key", [root], name=name, now=time.time()
        )
    else:
        with pytest.raises(InvalidInput, match="name constraints do not allow it"):
            made.issue(name, [ip_address(address)], now=time.time())
        with pytest.raises(InvalidInput, match="name constraints do not allow it"):
            load_credentials(tmp_path / "host.pem", tmp_path / "host.key", [root], name=name, now=time.time())
    assert openssl_takes(tmp_path / "host.pem", root) == allowed
    # What charon 5.9.8 makes of networks is no matter of ours, as long as it takes what is allowed.
    assert strongswan_takes(tmp_path / "host.pem", root) or not allowed
