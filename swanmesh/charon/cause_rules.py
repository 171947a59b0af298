"""What lines of charon's log and its alerts mean: the table that `causes` reads by.

The texts are those of strongSwan 5.9.8 and 6.0.6, where the two differ both are matched; the file that logs
each is named beside it.
"""

from __future__ import annotations

from typing import NamedTuple

from swanmesh.core.reasons import Cause

_HERE = "authentication of the peer failed here: "
LAST, PLAIN, EXACT, FINAL = 0, 1, 2, 3
"""How much a cause explains. One that explains less never follows one that explained more."""


class Rule(NamedTuple):
    needle: str
    """Stands in every line that the rule is for: the cheap look before the pattern."""
    pattern: str
    """Matched from the line's start: what a peer put into its identity stands further on."""
    code: Cause
    words: str
    rank: int = PLAIN


RULES = (
    # sa/ikev2/task_manager_v2.c, sa/ike_sa.c
    Rule(
        "giving up after",
        r"giving up after (\d+) retransmits",
        Cause.PEER_UNREACHABLE,
        "peer unreachable: no answer to {0} retransmission(s)",
        EXACT,
    ),
    Rule(
        "peer not responding",
        r"[\w ]+ failed, peer not responding",
        Cause.PEER_UNREACHABLE,
        "peer unreachable: it does not answer",
    ),
    Rule(
        "unable to resolve",
        r"unable to resolve (\S+),",
        Cause.PEER_UNREACHABLE,
        "the peer's address {0} cannot be resolved",
    ),
    # processing/jobs/delete_ike_sa_job.c
    Rule(
        "half open IKE_SA",
        r"deleting half open IKE_SA",
        Cause.HALF_OPEN_TIMEOUT,
        "peer fell silent before authentication was done",
    ),
    # sa/ikev2/tasks/ike_delete.c
    Rule(
        "received DELETE for IKE_SA",
        r"received DELETE for IKE_SA",
        Cause.PEER_DELETED,
        "peer deleted it",
        EXACT,
    ),
    Rule(
        "sending DELETE for IKE_SA",
        r"sending DELETE for IKE_SA",
        Cause.ENDED_HERE,
        "ended at this end",
        EXACT,
    ),
    # encoding/message.c: an initiator that rejects the responder says so and no more
    Rule(
        "N(AUTH_FAILED)",
        r"parsed INFORMATIONAL request \d+ \[ N\(AUTH_FAILED\) \]",
        Cause.AUTHENTICATION_FAILED_AT_PEER,
        "authentication failed at the peer: it does not accept our certificate or identity",
        FINAL,
    ),
    # sa/ikev2/tasks/ike_init.c and ike_auth.c: the peer's refusal. Without our proposals the peer says the
    # same as without a connection for us ("no IKE config found", task_manager_v2.c).
    Rule(
        "received NO_PROPOSAL_CHOSEN notify error",
        r"received NO_PROPOSAL_CHOSEN notify error",
        Cause.NO_CONNECTION_AT_PEER,
        "no common proposal, or no matching connection at the peer (NO_PROPOSAL_CHOSEN)",
    ),
    Rule(
        "received AUTHENTICATION_FAILED notify error",
        r"received AUTHENTICATION_FAILED notify error",
        Cause.AUTHENTICATION_FAILED_AT_PEER,
        "authentication failed at the peer: it does not accept our certificate or identity, "
        "or has no matching connection",
    ),
    Rule(
        "notify error",
        r"received (?!NO_PROPOSAL_CHOSEN|AUTHENTICATION_FAILED)([A-Z_0-9()]+) notify error",
        Cause.PEER_REFUSED,
        "peer refused the IKE_SA: {0}",
    ),
    # sa/ikev2/tasks/ike_auth.c: 6.0 puts nothing beside the error then (child_create.c, "install_child_sa")
    Rule(
        "IDr payload missing",
        r"IDr payload missing",
        Cause.PEER_REFUSED,
        "peer answered without its identity: most likely its kernel refused the SA, see its own status",
    ),
    Rule(
        "proposal selection invalid",
        r"peers? proposal selection invalid",
        Cause.NO_PROPOSAL,
        "peer chose a proposal not offered",
    ),
    # sa/ikev2/tasks/ike_init.c, child_create.c ("DH group" before 6.0) and sa/ikev2/keymat_v2.c
    Rule(
        " not supported",
        r"(?:(?:\w+ )?(?:key exchange method|DH group) "
        r"|(?:ENCRYPTION_ALGORITHM|INTEGRITY_ALGORITHM|PSEUDO_RANDOM_FUNCTION) "
        r"|(?=KDF_PRF ))(.+) not supported",
        Cause.UNSUPPORTED_ALGORITHM,
        "charon here cannot do {0}: leave it out of the proposals, or install the plugin that has it",
        EXACT,
    ),
    # sa/ikev2/tasks/ike_auth.c, responder
    Rule(
        "no matching peer config found",
        r"no matching peer config found",
        Cause.NO_CONNECTION_HERE,
        "no connection here matches the peer's identity",
    ),
    Rule(
        "received IDr",
        r"received IDr (.+), but require (.+)",
        Cause.IDENTITY_MISMATCH,
        "peer asked for the identity {0}, ours is {1}",
        EXACT,
    ),
    Rule(
        "unacceptable:",
        r"selected peer config '.*' unacceptable: (.+)",
        Cause.AUTHENTICATION_FAILED_HERE,
        _HERE + "{0}",
    ),
    # sa/ikev2/authenticators/pubkey_authenticator.c
    Rule(
        "no private key found for",
        r"no private key found for '(.*)'",
        Cause.MISSING_KEY,
        "no private key is loaded here for our identity {0}",
        EXACT,
    ),
    Rule(
        "public key found for",
        r"no trusted \S+ public key found for '(.*)'",
        Cause.AUTHORITY_UNKNOWN,
        _HERE + "no trusted key for {0}",
    ),
    Rule(
        "(myself)",
        r"authentication of '(.*)' \(myself\).* failed",
        Cause.AUTHENTICATION_FAILED_HERE,
        "authentication failed here: signing as {0} failed",
    ),
    Rule(
        "signature validation failed",
        r"signature validation failed",
        Cause.AUTHENTICATION_FAILED_HERE,
        _HERE + "its signature is wrong",
        LAST,
    ),
    # libstrongswan credentials/credential_manager.c
    Rule(
        "certificate invalid (valid",
        r"\S+ certificate invalid \(valid from (.*?) to (.*?)\)",
        Cause.CERTIFICATE_DATES,
        "certificate expired or not yet valid: the peer's holds from {0} to {1}",
        EXACT,
    ),
    Rule(
        "no issuer certificate found for",
        r"no issuer certificate found for \"(.*)\"",
        Cause.AUTHORITY_UNKNOWN,
        _HERE + "no trusted authority issued its certificate {0}",
        EXACT,
    ),
    Rule(
        "self-signed certificate",
        r"self-signed certificate \"(.*)\" is not trusted",
        Cause.AUTHORITY_UNKNOWN,
        _HERE + "its authority {0} is not trusted",
        EXACT,
    ),
    # libstrongswan plugins/revocation/revocation_validator.c
    Rule(
        "certificate was revoked on",
        r"certificate was revoked on (.*), reason: (.*)",
        Cause.CERTIFICATE_REVOKED,
        _HERE + "its certificate was revoked on {0} ({1})",
        EXACT,
    ),
    # libstrongswan credentials/auth_cfg.c; 6.0 adds what did not match
    Rule(
        "not authenticated by CA",
        r"constraint check failed: peer not authenticated by CA '(.*)'",
        Cause.AUTHORITY_UNKNOWN,
        _HERE + "its certificate is not from the authority {0}",
        EXACT,
    ),
    Rule(
        "constraint check failed: identity",
        r"constraint check failed: identity '(.*?)' (?:\(\w+\) )?required(?:, not matched by '(.*)')?",
        Cause.IDENTITY_MISMATCH,
        _HERE + "it is not the expected {0}",
        EXACT,
    ),
    Rule(
        "does not confirm identity",
        r"constraint check failed: certificate does not confirm identity '(.*)'",
        Cause.IDENTITY_MISMATCH,
        _HERE + "its certificate does not name {0}",
        EXACT,
    ),
    Rule(
        "but requires at least",
        r"constraint check failed: (\w+) is (\w+), but requires at least (\w+)",
        Cause.AUTHENTICATION_FAILED_HERE,
        _HERE + "{0} is {1}, {2} is required",
    ),
    # sa/ikev2/tasks/child_create.c: its IKE_SA may stand for long, so none of these outlives what follows
    Rule(
        "no CHILD_SA built",
        r"received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built",
        Cause.NO_PROPOSAL,
        "no common proposal for the CHILD_SA (NO_PROPOSAL_CHOSEN)",
    ),
    Rule(
        "no CHILD_SA built",
        r"received TS_UNACCEPTABLE notify, no CHILD_SA built",
        Cause.SELECTORS_REFUSED,
        "traffic selectors unacceptable to the peer (TS_UNACCEPTABLE)",
    ),
    Rule(
        "no CHILD_SA built",
        r"received (?!NO_PROPOSAL_CHOSEN|TS_UNACCEPTABLE)([A-Z_0-9()]+) notify, no CHILD_SA built",
        Cause.PEER_REFUSED,
        "peer refused the CHILD_SA: {0}",
    ),
    Rule(
        "no acceptable proposal found",
        r"no acceptable proposal found",
        Cause.NO_PROPOSAL,
        "no common proposal",
    ),
    Rule(
        "no acceptable traffic selectors",
        r"no acceptable traffic selectors found",
        Cause.SELECTORS_REFUSED,
        "traffic selectors unacceptable",
    ),
    Rule(
        "traffic selectors",
        r"traffic selectors (.*) === (.*) unacceptable",
        Cause.SELECTORS_REFUSED,
        "traffic selectors unacceptable here: the peer asked for {0} with {1}",
    ),
    Rule(
        "mode requested by responder",
        r"(\w+) mode requested by responder is unacceptable",
        Cause.MODE_REFUSED,
        "peer answered with {0} mode instead of transport mode",
    ),
    # plugins/kernel_netlink: the kernel's own words come first, and mean nothing alone
    Rule(
        "SA (SAD) in kernel",
        r"unable to install (.*)IPsec SA \(SAD\) in kernel",
        Cause.KERNEL_REFUSED,
        "the kernel refused the SA",
    ),
    Rule(
        "policies (SPD) in kernel",
        r"unable to install IPsec policies \(SPD\)",
        Cause.KERNEL_REFUSED,
        "the kernel refused the policies",
    ),
    Rule(
        "unable to allocate SPI",
        r"unable to allocate SPIs? from kernel",
        Cause.KERNEL_REFUSED,
        "the kernel gave no SPI",
    ),
    Rule(
        "failed to establish CHILD_SA",
        r"failed to establish CHILD_SA, keeping IKE_SA",
        Cause.CHILD_FAILED,
        "the CHILD_SA failed, its IKE_SA stands",
        LAST,
    ),
)

ALERTS = {
    "peer-init-unreachable": (Cause.PEER_UNREACHABLE, "peer unreachable: it does not answer", PLAIN),
    "retransmit-send-timeout": (
        Cause.PEER_UNREACHABLE,
        "peer unreachable: no answer after the last retransmission",
        PLAIN,
    ),
    "half-open-timeout": (Cause.HALF_OPEN_TIMEOUT, "peer fell silent before authentication was done", PLAIN),
    "local-auth-failed": (
        Cause.AUTHENTICATION_FAILED_AT_PEER,
        "authentication failed: ours, here or at the peer",
        LAST,
    ),
    "peer-auth-failed": (Cause.AUTHENTICATION_FAILED_HERE, "authentication of the peer failed here", LAST),
    "authorization-failed": (Cause.AUTHENTICATION_FAILED_HERE, "a hook of charon's refused the peer", PLAIN),
    "proposal-mismatch-ike": (Cause.NO_PROPOSAL, "no common proposal", PLAIN),
    "proposal-mismatch-child": (Cause.NO_PROPOSAL, "no common proposal for the CHILD_SA", PLAIN),
    "ts-mismatch": (Cause.SELECTORS_REFUSED, "traffic selectors unacceptable", PLAIN),
    "install-child-sa-failed": (Cause.KERNEL_REFUSED, "the kernel refused the SA", PLAIN),
    "install-child-policy-failed": (Cause.KERNEL_REFUSED, "the kernel refused the policies", PLAIN),
    "ike-sa-expired": (Cause.EXPIRED, "it reached the end of its life before it was renewed", PLAIN),
    "cert-expired": (Cause.CERTIFICATE_DATES, "certificate expired or not yet valid: the peer's", PLAIN),
    "cert-revoked": (Cause.CERTIFICATE_REVOKED, _HERE + "its certificate was revoked", PLAIN),
    "cert-validation-failed": (
        Cause.AUTHENTICATION_FAILED_HERE,
        _HERE + "whether its certificate was revoked is unknown",
        PLAIN,
    ),
    "cert-no-issuer": (Cause.AUTHORITY_UNKNOWN, _HERE + "no trusted authority issued its certificate", PLAIN),
    "cert-untrusted-root": (Cause.AUTHORITY_UNKNOWN, _HERE + "its authority is not trusted", PLAIN),
    "cert-exceeded-path-len": (
        Cause.AUTHORITY_UNKNOWN,
        _HERE + "its chain of authorities is too long",
        PLAIN,
    ),
    "cert-policy-violation": (
        Cause.AUTHENTICATION_FAILED_HERE,
        _HERE + "its certificate breaks a policy",
        PLAIN,
    ),
    "unique-replace": (Cause.REPLACED, "replaced by a newer IKE_SA of the same peer", PLAIN),
    "unique-keep": (Cause.REPLACED, "refused in favour of an older IKE_SA of the same peer", PLAIN),
    "keep-on-child-sa-failure": (Cause.CHILD_FAILED, "the CHILD_SA failed, its IKE_SA stands", LAST),
}
"""`alert` types that end or prevent an association (plugins/vici/vici_query.c at 6.0.6, alert_names)."""
