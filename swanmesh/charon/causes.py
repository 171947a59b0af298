"""Why an IKE_SA failed or ended, read from charon's `log` and `alert` events.

charon 5.9.8 tells causes in its log alone; from 6.0.3 there are `alert` events beside it, which name the kind
of trouble but not its details. What is quoted from a line may come from the peer.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

from swanmesh.charon.cause_rules import ALERTS, FINAL, LAST, RULES
from swanmesh.charon.codec import Section
from swanmesh.charon.messages import number, text
from swanmesh.core.model import shown
from swanmesh.core.observed import Diagnosis, InitiationRefused
from swanmesh.core.reasons import Cause, Reason

_REMEMBERED = 4096
"""Unique ids whose best cause so far is kept: more than fail at once, few enough to forget about."""

_NET, _ENC = b"\x03\x05group\x00\x03NET", b"\x03\x05group\x00\x03ENC"
"""How an encoded line of these groups begins: the key `group` and its value come first (vici_logger.c)."""
_REJECTED = b"N(AUTH_FAILED)"
"""All that the encoder's lines can tell."""
_NO_CONFIG = "no IKE config found for "
"""sa/ikev2/task_manager_v2.c; what is refused there never gets an IKE_SA with a name."""
_REFUSED_INITIATION = re.compile(rf"\s*{_NO_CONFIG}([0-9a-fA-F.:]+)\.\.\.([0-9a-fA-F.:]+), sending ")
_KERNEL_WORDS = "received netlink error: "
_END_ENTITY = "received end entity cert "
_SHOWN = re.compile(rf'{_END_ENTITY}"(.*)"')
"""sa/ikev2/tasks/ike_cert_post.c, ike_cert_pre.c."""
_OF_CERTIFICATES = frozenset(
    {
        Cause.AUTHENTICATION_FAILED_HERE,
        Cause.AUTHORITY_UNKNOWN,
        Cause.CERTIFICATE_DATES,
        Cause.CERTIFICATE_REVOKED,
        Cause.IDENTITY_MISMATCH,
    }
)
"""Causes that want the certificate named that the peer has shown."""
_COMPILED = tuple((rule.needle, re.compile(r"\s*" + rule.pattern), rule) for rule in RULES)
_TELLING = re.compile(
    "|".join(
        re.escape(n) for n in sorted({r.needle for r in RULES} | {_KERNEL_WORDS, _NO_CONFIG, _END_ENTITY})
    ).encode()
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
        self._known: OrderedDict[int, tuple[int, str]] = OrderedDict()
        self._kernel: dict[int, str] = {}
        self._shown: OrderedDict[int, str] = OrderedDict()
        """Subjects of the certificates that peers sent last, by unique id."""

    def from_log(self, section: Section) -> Diagnosis | None:
        """What a `log` event tells of an IKE_SA of a connection, if it tells a cause."""
        unique_id, line = number(section, "ikesa-uniqueid"), text(section, "msg")
        if unique_id is None:
            return None
        if line.startswith(_KERNEL_WORDS):
            self._kernel.clear()  # the next lines of the same IKE_SA use it, or nobody
            self._kernel[unique_id] = shown(line.removeprefix(_KERNEL_WORDS))
            return None
        if match := _SHOWN.match(line):
            self._shown[unique_id] = shown(match[1])
            _bound(self._shown)
            return None
        for needle, pattern, rule in _COMPILED:
            if needle in line and (match := pattern.match(line)):
                words = rule.words.format(*(shown(group or "") for group in match.groups()))
                subject = self._shown.get(unique_id, "")
                if subject and subject not in words and rule.code in _OF_CERTIFICATES:
                    words = f"{words}; its certificate is {subject}"
                if rule.code is Cause.KERNEL_REFUSED and (detail := self._kernel.pop(unique_id, "")):
                    words = f"{words}: {detail}"
                return self._tell(text(section, "ikesa-name"), unique_id, Reason(rule.code, words), rule.rank)
        return None

    def refused_initiation(self, section: Section) -> InitiationRefused | None:
        """Who was refused for want of a connection, if a `log` event tells that."""
        match = _REFUSED_INITIATION.match(text(section, "msg"))
        return InitiationRefused(*match.groups()) if match else None

    def from_alert(self, kind: str, connection: str, unique_id: int) -> Diagnosis | None:
        """What an `alert` of 6.0.3 and later tells, if it is one that ends or prevents an association."""
        if kind not in ALERTS:
            return None
        code, words, rank = ALERTS[kind]
        return self._tell(connection, unique_id, Reason(code, words), rank)

    def _tell(self, connection: str, unique_id: int, cause: Reason, rank: int) -> Diagnosis | None:
        # A responder's IKE_SA is named so until the peer's identity has told which connection it is.
        known, code = self._known.get(unique_id, (LAST, ""))
        if not connection or connection == "(unnamed)" or rank < known:
            return None
        # 6.0 answers without its identity where the kernel refused, and is rejected for that.
        follows = rank == FINAL and code == Cause.KERNEL_REFUSED
        self._known[unique_id] = rank, code if follows else cause.code
        self._known.move_to_end(unique_id)
        _bound(self._known)
        return None if follows else Diagnosis(connection, unique_id, cause)


def _bound(remembered: OrderedDict[int, Any]) -> None:
    if len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
