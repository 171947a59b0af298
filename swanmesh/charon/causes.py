"""Why an IKE_SA failed or ended, read from charon's `log` and `alert` events.

charon 5.9.8 tells causes in its log alone; from 6.0.3 there are `alert` events beside it, which name the kind
of trouble but not its details. The texts are those of strongSwan 5.9.8 and 6.0.6, where the two differ both
are matched; the file that logs each is named beside it. What is quoted from a line may come from the peer.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

from swanmesh.charon.codec import Section
from swanmesh.charon.messages import number, text
from swanmesh.core.model import shown
from swanmesh.core.observed import Diagnosis, Knocked

_REMEMBERED = 4096
"""Unique ids whose best cause so far is kept: more than fail at once, few enough to forget about."""

_LAST, _PLAIN, _EXACT, _FINAL = 0, 1, 2, 3
"""How much a cause explains. One that explains less never follows one that explained more."""


class _Rule(NamedTuple):
    needle: str
    """Stands in every line that the rule is for: the cheap look before the pattern."""
    pattern: str
    """Matched from the line's start: what a peer put into its identity stands further on."""
    words: str
    rank: int = _PLAIN


_RULES = (
    # sa/ikev2/task_manager_v2.c, sa/ike_sa.c
    _Rule(
        "giving up after",
        r"giving up after (\d+) retransmits",
        "peer unreachable: no answer to {0} retransmission(s)",
        _EXACT,
    ),
    _Rule(
        "peer not responding", r"[\w ]+ failed, peer not responding", "peer unreachable: it does not answer"
    ),
    _Rule("unable to resolve", r"unable to resolve (\S+),", "the peer's address {0} cannot be resolved"),
    # processing/jobs/delete_ike_sa_job.c
    _Rule(
        "half open IKE_SA", r"deleting half open IKE_SA", "peer fell silent before authentication was done"
    ),
    # sa/ikev2/tasks/ike_delete.c
    _Rule("received DELETE for IKE_SA", r"received DELETE for IKE_SA", "peer deleted it", _EXACT),
    _Rule("sending DELETE for IKE_SA", r"sending DELETE for IKE_SA", "ended at this end", _EXACT),
    # encoding/message.c: an initiator that rejects the responder says so and no more
    _Rule(
        "N(AUTH_FAILED)",
        r"parsed INFORMATIONAL request \d+ \[ N\(AUTH_FAILED\) \]",
        "authentication failed at the peer: it does not accept our certificate or identity",
        _FINAL,
    ),
    # sa/ikev2/tasks/ike_init.c and ike_auth.c: the peer's refusal. Without our proposals the peer says the
    # same as without a connection for us ("no IKE config found", task_manager_v2.c).
    _Rule(
        "received NO_PROPOSAL_CHOSEN notify error",
        r"received NO_PROPOSAL_CHOSEN notify error",
        "no common proposal, or no matching connection at the peer (NO_PROPOSAL_CHOSEN)",
    ),
    _Rule(
        "received AUTHENTICATION_FAILED notify error",
        r"received AUTHENTICATION_FAILED notify error",
        "authentication failed at the peer: it does not accept our certificate or identity, "
        "or has no matching connection",
    ),
    _Rule(
        "notify error",
        r"received (?!NO_PROPOSAL_CHOSEN|AUTHENTICATION_FAILED)([A-Z_0-9()]+) notify error",
        "peer refused the IKE_SA: {0}",
    ),
    _Rule(
        "proposal selection invalid",
        r"peers? proposal selection invalid",
        "peer chose a proposal not offered",
    ),
    # sa/ikev2/tasks/ike_auth.c, responder
    _Rule(
        "no matching peer config found",
        r"no matching peer config found",
        "no connection here matches the peer's identity",
    ),
    _Rule(
        "received IDr",
        r"received IDr (.+), but require (.+)",
        "peer asked for the identity {0}, ours is {1}",
        _EXACT,
    ),
    _Rule(
        "unacceptable:",
        r"selected peer config '.*' unacceptable: (.+)",
        "authentication of the peer failed here: {0}",
    ),
    # sa/ikev2/authenticators/pubkey_authenticator.c
    _Rule(
        "no private key found for",
        r"no private key found for '(.*)'",
        "no private key is loaded here for our identity {0}",
        _EXACT,
    ),
    _Rule(
        "public key found for",
        r"no trusted \S+ public key found for '(.*)'",
        "authentication of the peer failed here: no trusted key for {0}",
    ),
    _Rule(
        "(myself)",
        r"authentication of '(.*)' \(myself\).* failed",
        "authentication failed here: signing as {0} failed",
    ),
    _Rule(
        "signature validation failed",
        r"signature validation failed",
        "authentication of the peer failed here: its signature is wrong",
        _LAST,
    ),
    # libstrongswan credentials/credential_manager.c
    _Rule(
        "certificate invalid (valid",
        r"\S+ certificate invalid \(valid from (.*?) to (.*?)\)",
        "certificate expired or not yet valid: the peer's holds from {0} to {1}",
        _EXACT,
    ),
    _Rule(
        "no issuer certificate found for",
        r"no issuer certificate found for \"(.*)\"",
        "authentication of the peer failed here: no trusted authority issued its certificate {0}",
        _EXACT,
    ),
    _Rule(
        "self-signed certificate",
        r"self-signed certificate \"(.*)\" is not trusted",
        "authentication of the peer failed here: its authority {0} is not trusted",
        _EXACT,
    ),
    # libstrongswan plugins/revocation/revocation_validator.c
    _Rule(
        "certificate was revoked on",
        r"certificate was revoked on (.*), reason: (.*)",
        "authentication of the peer failed here: its certificate was revoked on {0} ({1})",
        _EXACT,
    ),
    # libstrongswan credentials/auth_cfg.c; 6.0 adds what did not match
    _Rule(
        "not authenticated by CA",
        r"constraint check failed: peer not authenticated by CA '(.*)'",
        "authentication of the peer failed here: its certificate is not from the authority {0}",
        _EXACT,
    ),
    _Rule(
        "constraint check failed: identity",
        r"constraint check failed: identity '(.*?)' (?:\(\w+\) )?required(?:, not matched by '(.*)')?",
        "authentication of the peer failed here: it is not the expected {0}",
        _EXACT,
    ),
    _Rule(
        "does not confirm identity",
        r"constraint check failed: certificate does not confirm identity '(.*)'",
        "authentication of the peer failed here: its certificate does not name {0}",
        _EXACT,
    ),
    _Rule(
        "but requires at least",
        r"constraint check failed: (\w+) is (\w+), but requires at least (\w+)",
        "authentication of the peer failed here: {0} is {1}, {2} is required",
    ),
    # sa/ikev2/tasks/child_create.c: its IKE_SA may stand for long, so none of these outlives what follows
    _Rule(
        "no CHILD_SA built",
        r"received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built",
        "no common proposal for the CHILD_SA (NO_PROPOSAL_CHOSEN)",
    ),
    _Rule(
        "no CHILD_SA built",
        r"received TS_UNACCEPTABLE notify, no CHILD_SA built",
        "traffic selectors unacceptable to the peer (TS_UNACCEPTABLE)",
    ),
    _Rule(
        "no CHILD_SA built",
        r"received (?!NO_PROPOSAL_CHOSEN|TS_UNACCEPTABLE)([A-Z_0-9()]+) notify, no CHILD_SA built",
        "peer refused the CHILD_SA: {0}",
    ),
    _Rule("no acceptable proposal found", r"no acceptable proposal found", "no common proposal"),
    _Rule(
        "no acceptable traffic selectors",
        r"no acceptable traffic selectors found",
        "traffic selectors unacceptable",
    ),
    _Rule(
        "traffic selectors",
        r"traffic selectors (.*) === (.*) unacceptable",
        "traffic selectors unacceptable here: the peer asked for {0} with {1}",
    ),
    _Rule(
        "mode requested by responder",
        r"(\w+) mode requested by responder is unacceptable",
        "peer answered with {0} mode instead of transport mode",
    ),
    # plugins/kernel_netlink: the kernel's own words come first, and mean nothing alone
    _Rule(
        "SA (SAD) in kernel", r"unable to install (.*)IPsec SA \(SAD\) in kernel", "the kernel refused the SA"
    ),
    _Rule(
        "policies (SPD) in kernel",
        r"unable to install IPsec policies \(SPD\)",
        "the kernel refused the policies",
    ),
    _Rule("unable to allocate SPI", r"unable to allocate SPIs? from kernel", "the kernel gave no SPI"),
    _Rule(
        "failed to establish CHILD_SA",
        r"failed to establish CHILD_SA, keeping IKE_SA",
        "the CHILD_SA failed, its IKE_SA stands",
        _LAST,
    ),
)

_ALERTS = {
    "peer-init-unreachable": ("peer unreachable: it does not answer", _PLAIN),
    "retransmit-send-timeout": ("peer unreachable: no answer after the last retransmission", _PLAIN),
    "half-open-timeout": ("peer fell silent before authentication was done", _PLAIN),
    "local-auth-failed": ("authentication failed: ours, here or at the peer", _LAST),
    "peer-auth-failed": ("authentication of the peer failed here", _LAST),
    "authorization-failed": ("a hook of charon's refused the peer", _PLAIN),
    "proposal-mismatch-ike": ("no common proposal", _PLAIN),
    "proposal-mismatch-child": ("no common proposal for the CHILD_SA", _PLAIN),
    "ts-mismatch": ("traffic selectors unacceptable", _PLAIN),
    "install-child-sa-failed": ("the kernel refused the SA", _PLAIN),
    "install-child-policy-failed": ("the kernel refused the policies", _PLAIN),
    "ike-sa-expired": ("it reached the end of its life before it was renewed", _PLAIN),
    "cert-expired": ("certificate expired or not yet valid: the peer's", _PLAIN),
    "cert-revoked": ("authentication of the peer failed here: its certificate was revoked", _PLAIN),
    "cert-validation-failed": (
        "authentication of the peer failed here: whether its certificate was revoked is unknown",
        _PLAIN,
    ),
    "cert-no-issuer": (
        "authentication of the peer failed here: no trusted authority issued its certificate",
        _PLAIN,
    ),
    "cert-untrusted-root": ("authentication of the peer failed here: its authority is not trusted", _PLAIN),
    "cert-exceeded-path-len": (
        "authentication of the peer failed here: its chain of authorities is too long",
        _PLAIN,
    ),
    "cert-policy-violation": (
        "authentication of the peer failed here: its certificate breaks a policy",
        _PLAIN,
    ),
    "unique-replace": ("replaced by a newer IKE_SA of the same peer", _PLAIN),
    "unique-keep": ("refused in favour of an older IKE_SA of the same peer", _PLAIN),
    "keep-on-child-sa-failure": ("the CHILD_SA failed, its IKE_SA stands", _LAST),
}
"""`alert` types that end or prevent an association (plugins/vici/vici_query.c at 6.0.6, alert_names)."""

_NET, _ENC = b"\x03\x05group\x00\x03NET", b"\x03\x05group\x00\x03ENC"
"""How an encoded line of these groups begins: the key `group` and its value come first (vici_logger.c)."""
_REJECTED = b"N(AUTH_FAILED)"
"""All that the encoder's lines can tell."""
_KNOCK = "no IKE config found for "
"""sa/ikev2/task_manager_v2.c; what is refused there never gets an IKE_SA with a name."""
_KNOCKED = re.compile(rf"\s*{_KNOCK}([0-9a-fA-F.:]+)\.\.\.([0-9a-fA-F.:]+), sending ")
_KERNEL_WORDS = "received netlink error: "
_COMPILED = tuple((rule.needle, re.compile(r"\s*" + rule.pattern), rule) for rule in _RULES)
_TELLING = re.compile(
    "|".join(re.escape(n) for n in sorted({r.needle for r in _RULES} | {_KERNEL_WORDS, _KNOCK})).encode()
)


def may_tell(payload: bytes) -> bool:
    """Whether an encoded `log` event can hold a cause: decides on the bytes, as most lines tell nothing.

    Five thousand quiet peers make charon write several thousand lines a second about its dead peer detection,
    nearly all of them of the two groups that are looked at first.
    """
    if payload.startswith(_NET):
        return False
    if payload.startswith(_ENC):
        return _REJECTED in payload
    return _TELLING.search(payload) is not None


class Causes:
    """Turns log lines and alerts into diagnoses, the most exact one of each IKE_SA last."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, int] = OrderedDict()
        self._kernel: dict[int, str] = {}

    def from_log(self, section: Section) -> Diagnosis | None:
        """What a `log` event tells of an IKE_SA of a connection, if it tells a cause."""
        unique_id, line = number(section, "ikesa-uniqueid"), text(section, "msg")
        if unique_id is None:
            return None
        if line.startswith(_KERNEL_WORDS):
            self._kernel.clear()  # the next lines of the same IKE_SA use it, or nobody
            self._kernel[unique_id] = shown(line.removeprefix(_KERNEL_WORDS))
            return None
        for needle, pattern, rule in _COMPILED:
            if needle in line and (match := pattern.match(line)):
                words = rule.words.format(*(shown(group or "") for group in match.groups()))
                if words.startswith("the kernel") and (detail := self._kernel.pop(unique_id, "")):
                    words = f"{words}: {detail}"
                return self._tell(text(section, "ikesa-name"), unique_id, words, rule.rank)
        return None

    def knock(self, section: Section) -> Knocked | None:
        """Who was refused for want of a connection, if a `log` event tells that."""
        match = _KNOCKED.match(text(section, "msg"))
        return Knocked(*match.groups()) if match else None

    def from_alert(self, kind: str, connection: str, unique_id: int) -> Diagnosis | None:
        """What an `alert` of 6.0.3 and later tells, if it is one that ends or prevents an association."""
        words, rank = _ALERTS.get(kind, ("", _LAST))
        return self._tell(connection, unique_id, words, rank) if words else None

    def _tell(self, connection: str, unique_id: int, words: str, rank: int) -> Diagnosis | None:
        # A responder's IKE_SA is named so until the peer's identity has told which connection it is.
        if not connection or connection == "(unnamed)" or rank < self._known.get(unique_id, _LAST):
            return None
        self._known[unique_id] = rank
        self._known.move_to_end(unique_id)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return Diagnosis(connection, unique_id, words)
