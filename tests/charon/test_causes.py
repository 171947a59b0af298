"""charon's own lines, from both generations, and the reasons they become."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swanmesh.charon.causes import Causes, may_tell
from swanmesh.core.observed import Diagnosis
from swanmesh.core.reasons import Reason
from tests.charon import wire

UNABLE = "charon here cannot do {}: leave it out of the proposals, or install the plugin that has it"
HERE = "authentication of the peer failed here: "

# Line for line as strongSwan 5.9.8 or 6.0.6 writes them.
LINES = {
    "giving up after 5 retransmits": Reason(
        "peer-unreachable", "peer unreachable: no answer to 5 retransmission(s)"
    ),
    "establishing IKE_SA failed, peer not responding": Reason(
        "peer-unreachable", "peer unreachable: it does not answer"
    ),
    "rekeying IKE_SA failed, peer not responding": Reason(
        "peer-unreachable", "peer unreachable: it does not answer"
    ),
    "unable to resolve b.mesh.example, initiate aborted": Reason(
        "peer-unreachable", "the peer's address b.mesh.example cannot be resolved"
    ),
    "received DELETE for IKE_SA one[7]": Reason("peer-deleted", "peer deleted it"),
    "sending DELETE for IKE_SA one[7]": Reason("ended-here", "ended at this end"),
    "deleting half open IKE_SA with 192.0.2.2 after timeout": Reason(
        "half-open-timeout", "peer fell silent before authentication was done"
    ),
    "deleting half open IKE_SA one[7] with 192.0.2.2 after timeout": Reason(
        "half-open-timeout", "peer fell silent before authentication was done"
    ),
    "received NO_PROPOSAL_CHOSEN notify error": Reason(
        "no-connection-at-peer",
        "no common proposal, or no matching connection at the peer (NO_PROPOSAL_CHOSEN)",
    ),
    "received AUTHENTICATION_FAILED notify error": Reason(
        "authentication-failed-at-peer",
        (
            "authentication failed at the peer: it does not accept our certificate "
            "or identity, or has no matching connection"
        ),
    ),
    "parsed INFORMATIONAL request 2 [ N(AUTH_FAILED) ]": Reason(
        "authentication-failed-at-peer",
        "authentication failed at the peer: it does not accept our certificate or identity",
    ),
    "received INVALID_SYNTAX notify error": Reason("peer-refused", "peer refused the IKE_SA: INVALID_SYNTAX"),
    "IDr payload missing": Reason(
        "peer-refused",
        "peer answered without its identity: most likely its kernel refused the SA, see its own status",
    ),
    "no private key found for 'a.mesh.example'": Reason(
        "missing-key", "no private key is loaded here for our identity a.mesh.example"
    ),
    "no trusted ECDSA public key found for 'b.mesh.example'": Reason(
        "authority-unknown", HERE + "no trusted key for b.mesh.example"
    ),
    "subject certificate invalid (valid from Nov 20 03:00:00 2026 to Nov 22 03:00:00 2026)": Reason(
        "certificate-dates",
        (
            "certificate expired or not yet valid: the peer's holds from Nov 20 "
            "03:00:00 2026 to Nov 22 03:00:00 2026"
        ),
    ),
    'no issuer certificate found for "CN=b.mesh.example"': Reason(
        "authority-unknown", HERE + "no trusted authority issued its certificate CN=b.mesh.example"
    ),
    '  self-signed certificate "CN=Mesh CA" is not trusted': Reason(
        "authority-unknown", HERE + "its authority CN=Mesh CA is not trusted"
    ),
    "certificate was revoked on Nov 21 03:00:00 UTC 2026, reason: key compromise": Reason(
        "certificate-revoked",
        HERE + "its certificate was revoked on Nov 21 03:00:00 UTC 2026 (key compromise)",
    ),
    "constraint check failed: peer not authenticated by CA 'CN=Mesh CA'": Reason(
        "authority-unknown", HERE + "its certificate is not from the authority CN=Mesh CA"
    ),
    "constraint check failed: identity 'c.mesh.example' required ": Reason(
        "identity-mismatch", HERE + "it is not the expected c.mesh.example"
    ),
    "constraint check failed: identity 'c.mesh.example' (ID_FQDN) required, not "
    "matched by 'b.mesh.example' (ID_FQDN)": Reason(
        "identity-mismatch", HERE + "it is not the expected c.mesh.example"
    ),
    "selected peer config 'one' unacceptable: constraint checking failed": Reason(
        "authentication-failed-here", HERE + "constraint checking failed"
    ),
    "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built": Reason(
        "no-proposal", "no common proposal for the CHILD_SA (NO_PROPOSAL_CHOSEN)"
    ),
    "received TS_UNACCEPTABLE notify, no CHILD_SA built": Reason(
        "selectors-refused", "traffic selectors unacceptable to the peer (TS_UNACCEPTABLE)"
    ),
    "received FAILED_CP_REQUIRED notify, no CHILD_SA built": Reason(
        "peer-refused", "peer refused the CHILD_SA: FAILED_CP_REQUIRED"
    ),
    "traffic selectors 192.0.2.1/32 === 192.0.2.9/32 unacceptable": Reason(
        "selectors-refused",
        ("traffic selectors unacceptable here: the peer asked for 192.0.2.1/32 with 192.0.2.9/32"),
    ),
    "TUNNEL mode requested by responder is unacceptable": Reason(
        "mode-refused", "peer answered with TUNNEL mode instead of transport mode"
    ),
    "unable to install inbound and outbound IPsec SA (SAD) in kernel": Reason(
        "kernel-refused", "the kernel refused the SA"
    ),
    "unable to install IPsec policies (SPD) in kernel": Reason(
        "kernel-refused", "the kernel refused the policies"
    ),
    "unable to allocate SPIs from kernel": Reason("kernel-refused", "the kernel gave no SPI"),
    "unable to allocate SPI from kernel": Reason("kernel-refused", "the kernel gave no SPI"),
    "failed to establish CHILD_SA, keeping IKE_SA": Reason(
        "child-failed", "the CHILD_SA failed, its IKE_SA stands"
    ),
    "configured key exchange method ML_KEM_768 not supported": Reason(
        "unsupported-algorithm", UNABLE.format("ML_KEM_768")
    ),
    "key exchange method ML_KEM_768 not supported": Reason(
        "unsupported-algorithm", UNABLE.format("ML_KEM_768")
    ),
    "requested DH group NEWHOPE_128 not supported": Reason(
        "unsupported-algorithm", UNABLE.format("NEWHOPE_128")
    ),
    "ENCRYPTION_ALGORITHM CAMELLIA_CBC (key size 256) not supported!": Reason(
        "unsupported-algorithm", UNABLE.format("CAMELLIA_CBC (key size 256)")
    ),
    "KDF_PRF with PRF_HMAC_SHA2_256 not supported": Reason(
        "unsupported-algorithm", UNABLE.format("KDF_PRF with PRF_HMAC_SHA2_256")
    ),
}


def _log(line: str, *, connection: str = "one", unique_id: str = "7", group: str = "IKE") -> dict[str, bytes]:
    section = {"group": group, "ikesa-name": connection, "ikesa-uniqueid": unique_id, "msg": line}
    return {key: value.encode() for key, value in section.items()}


@pytest.mark.parametrize("line", LINES)
def test_a_line_becomes_its_reason(line: str) -> None:
    section = _log(line, group="ENC" if line.startswith("parsed ") else "IKE")
    assert may_tell(wire.serialize(section))
    assert Causes().from_log(section) == Diagnosis("one", 7, LINES[line])


@pytest.mark.parametrize(
    ("group", "line"),
    [
        ("CFG", "added vici connection: one"),
        ("NET", "sending packet: from 192.0.2.1[500] to 192.0.2.2[500] (232 bytes)"),
        ("ENC", "parsed INFORMATIONAL response 12 [ ]"),
        ("IKE", "IKE_SA one[7] established between 192.0.2.1[a]...192.0.2.2[b]"),
        ("IKE", "retransmit 1 of request with message ID 0"),
    ],
)
def test_an_ordinary_line_is_passed_over_undecoded(group: str, line: str) -> None:
    assert not may_tell(wire.serialize(_log(line, group=group)))


def test_a_peer_cannot_speak_for_charon() -> None:
    forged = 'received end entity cert "CN=x, giving up after 9 retransmits"'
    assert Causes().from_log(_log(forged)) is None


def test_a_peers_text_is_shortened_and_printable() -> None:
    diagnosis = Causes().from_log(_log(f"no trusted ECDSA public key found for '\x1b[2J{'x' * 5000}{{0}}'"))
    assert diagnosis is not None
    assert diagnosis.cause.words.isprintable()
    assert len(diagnosis.cause.words) < 200


def test_the_exact_cause_is_not_covered_by_a_vaguer_one() -> None:
    causes = Causes()
    assert causes.from_log(_log('no issuer certificate found for "CN=x"')) is not None
    assert causes.from_log(_log("no trusted ECDSA public key found for 'x'")) is None
    assert causes.from_alert("peer-auth-failed", "one", 7) is None
    assert causes.from_log(_log("no trusted ECDSA public key found for 'x'", unique_id="8")) is not None


def test_the_end_is_told_after_an_earlier_trouble() -> None:
    causes = Causes()
    causes.from_log(_log("traffic selectors 192.0.2.1/32 === 192.0.2.9/32 unacceptable"))
    diagnosis = causes.from_log(_log("received DELETE for IKE_SA one[7]"))
    assert diagnosis is not None
    assert diagnosis.cause.code == "peer-deleted"


def test_the_kernels_words_go_with_what_they_led_to() -> None:
    causes = Causes()
    assert causes.from_log(_log("received netlink error: No such file or directory (2)")) is None
    assert causes.from_log(_log("unable to add SAD entry with SPI c0000001 (FAILED)")) is None
    diagnosis = causes.from_log(_log("unable to install inbound and outbound IPsec SA (SAD) in kernel"))
    assert diagnosis is not None
    assert diagnosis.cause.words == "the kernel refused the SA: No such file or directory (2)"


def test_who_is_rejected_because_its_kernel_refused_was_not_rejected_for_its_certificate() -> None:
    causes = Causes()
    assert (
        causes.from_log(_log("unable to install inbound and outbound IPsec SA (SAD) in kernel")) is not None
    )
    assert causes.from_log(_log("parsed INFORMATIONAL request 2 [ N(AUTH_FAILED) ]", group="ENC")) is None
    assert causes.from_log(_log("received DELETE for IKE_SA one[7]")) is None


def test_what_fails_names_the_certificate_that_the_peer_has_shown() -> None:
    causes = Causes()
    shown = 'received end entity cert "C=XX, CN=b.mesh.example"'
    assert may_tell(wire.serialize(_log(shown)))
    # The responder's IKE_SA has no name yet.
    assert causes.from_log(_log(shown, connection="(unnamed)")) is None
    revoked = "certificate was revoked on Nov 24 02:50:21 UTC 2026, reason: key compromise"
    diagnosis = causes.from_log(_log(revoked))
    assert diagnosis is not None
    assert diagnosis.cause.words.endswith("(key compromise); its certificate is C=XX, CN=b.mesh.example")
    other = causes.from_log(_log(revoked, unique_id="8"))
    assert other is not None and "its certificate is" not in other.cause.words
    ended = causes.from_log(_log("received DELETE for IKE_SA one[7]"))
    assert ended is None or "certificate" not in ended.cause.words


def test_a_line_of_no_connection_is_nobodys_cause() -> None:
    line = "giving up after 5 retransmits"
    assert Causes().from_log(_log(line, connection="(unnamed)")) is None
    assert Causes().from_log({"msg": line.encode()}) is None


def test_what_is_remembered_is_bounded() -> None:
    causes = Causes()
    for unique_id in range(20_000):
        causes.from_log(_log("received DELETE for IKE_SA one", unique_id=str(unique_id)))
        causes.from_log(_log('received end entity cert "CN=x"', unique_id=str(unique_id)))
    assert len(causes._known) <= 4096 and len(causes._shown) <= 4096


def test_a_hundred_thousand_ordinary_lines_cost_little() -> None:
    payload = wire.serialize(_log("sending packet: from 192.0.2.1[500] to 192.0.2.2[500] (232 bytes)"))
    started = time.process_time()
    assert not any(may_tell(payload) for _ in range(100_000))
    assert time.process_time() - started < 2


@given(st.text(max_size=300))
def test_no_line_raises(line: str) -> None:
    for prefix in ("", "giving up after ", "received netlink error: ", "selected peer config '"):
        Causes().from_log(
            {"msg": (prefix + line).encode(errors="replace"), "ikesa-uniqueid": b"1", "ikesa-name": b"x"}
        )
