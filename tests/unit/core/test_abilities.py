"""What a charon can do decides what it is told to propose and how often it asks for signs of life."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swanmesh.core.abilities import UNKNOWN, Abilities, dpd_delay, problems
from swanmesh.core.connections import Terms
from swanmesh.core.desired import terms
from swanmesh.core.model import ConnectionSettings
from swanmesh.core.settings.proposals import MORE_KEY_EXCHANGES, fault, unsupported
from tests.unit.core.build import settings

DEBIAN = frozenset(
    {"AES_CBC", "AES_GCM_16", "HMAC_SHA2_256_128", "PRF_HMAC_SHA2_256", "CURVE_25519", "ECP_256"}
)
OLD, NEW = Abilities("5.9.8", DEBIAN), Abilities("6.0.1", DEBIAN | {MORE_KEY_EXCHANGES})
FUTURE = "aes128gcm16-prfsha256-x25519-ke1_mlkem768"


def agreed(how: ConnectionSettings, charon: Abilities) -> Terms:
    return terms(replace(settings(), connection=how), charon)


@pytest.mark.parametrize(
    ("proposal", "ike"),
    [
        ("aes128gcm16-prfsha256-x25519", True),
        ("aes256-sha256-modp2048", True),
        ("aes128-aes256-sha256-sha512-x25519-ecp256", True),
        ("chacha20poly1305-prfsha512-curve448", True),
        (FUTURE, True),
        ("default", True),
        ("aes128gcm16-x25519-esn", False),
        ("aes128gcm128-esn-noesn", False),
        ("aes256gmac", False),
        ("aes128-sha256", False),
        ("aes128gcm16-none", False),
        ("default", False),
    ],
)
def test_what_charon_reads_is_no_fault(proposal: str, ike: bool) -> None:
    assert fault(proposal, ike=ike) == ""


@pytest.mark.parametrize(
    ("proposal", "ike", "words"),
    [
        ("aes128gcm17-prfsha256-x25519", True, "aes128gcm17"),
        ("aes128gcm16-prfsha256-x25519-ke8_mlkem768", True, "ke8_mlkem768"),
        ("aes128gcm16-prfsha256-x25519-ke1_sha256", True, "ke1_sha256"),
        ("aes128gcm16-x25519", True, "pseudo-random function"),
        ("aes128gcm16-prfsha256", True, "key exchange"),
        ("aes128gcm16-prfsha256-none", True, "key exchange"),
        ("aes128-x25519", True, "integrity"),
        ("sha256-x25519", False, "encryption"),
        ("aes128-aes128gcm16-sha256", False, "mixes"),
    ],
)
def test_what_charon_refuses_is_told_with_its_cause(proposal: str, ike: bool, words: str) -> None:
    assert words in fault(proposal, ike=ike)


def test_a_proposal_that_charon_cannot_do_is_left_out_and_told_of() -> None:
    how = ConnectionSettings(ike_proposals=(FUTURE, "aes128gcm16-prfsha256-x25519"))
    assert agreed(how, NEW).ike_proposals == ("aes128gcm16-prfsha256-x25519",)
    (problem,) = problems(how, NEW, "swanmesh.yaml")
    assert (problem.key, problem.value) == ("connection.ike_proposals[0]", FUTURE)
    assert "ML_KEM_768" in problem.message and "left out" in problem.message


def test_the_only_proposal_stays_and_is_told_of() -> None:
    how = ConnectionSettings(esp_proposals=("aes128gcm16-mlkem768-esn",))
    assert agreed(how, NEW).esp_proposals == how.esp_proposals
    (problem,) = problems(how, NEW, "swanmesh.yaml")
    assert problem.key == "connection.esp_proposals[0]" and "nothing can be negotiated" in problem.message


def test_nothing_is_left_out_before_charon_has_answered() -> None:
    how = ConnectionSettings(ike_proposals=(FUTURE,))
    assert agreed(how, UNKNOWN).ike_proposals == (FUTURE,)
    assert list(problems(how, UNKNOWN, "swanmesh.yaml")) == []


def test_several_key_exchanges_need_a_charon_that_knows_of_them() -> None:
    twice = "aes128gcm16-prfsha256-x25519-ke1_ecp256"
    assert unsupported(twice, OLD.algorithms or frozenset(), ike=True) == [MORE_KEY_EXCHANGES]
    assert unsupported(twice, NEW.algorithms or frozenset(), ike=True) == []


def test_the_kernels_encryption_is_not_asked_of_charon() -> None:
    assert unsupported("camellia256ccm16-x25519", DEBIAN, ike=False) == []
    assert unsupported("camellia256ccm16-prfsha256-x25519", DEBIAN, ike=True) == ["CAMELLIA_CCM_16"]
    assert unsupported("aes128-sha512-x25519", DEBIAN, ike=True) == ["HMAC_SHA2_512_256", "PRF_HMAC_SHA2_512"]


@pytest.mark.parametrize("version", ["", "5.9.8", "5.9.14", "6.0.0"])
def test_where_traffic_shows_life_the_silent_are_asked_soon(version: str) -> None:
    assert dpd_delay(ConnectionSettings(), Abilities(version)) == 5


@pytest.mark.parametrize("version", ["6.0.1", "6.0.6", "6.1", "10.0.0"])
def test_where_it_does_not_the_busy_are_not_asked_all_the_time(version: str) -> None:
    how = ConnectionSettings()
    assert 5_000 / dpd_delay(how, Abilities(version)) < 100
    assert dpd_delay(replace(how, encap=True), Abilities(version)) == how.dpd_delay
