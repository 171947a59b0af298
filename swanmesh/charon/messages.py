"""From VICI sections to the core's words.

What a section holds is told in strongSwan's plugins/vici/vici_query.c; 5.9.8 and 6.0 differ in which keys
there are, so a missing one is never an error. A number that is none, a section where a value should be: the
section concerned is left out and counted (`Decoder.skipped`), the rest stands.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from swanmesh.charon.codec import Section
from swanmesh.core.observed import (
    ChildDown,
    ChildRekeyed,
    ChildSa,
    ChildUp,
    Event,
    IkeDown,
    IkeMoved,
    IkeRekeyed,
    IkeSa,
    IkeUp,
    LoadedConnection,
)
from swanmesh.core.settings.proposals import MORE_KEY_EXCHANGES

_ENDPOINTS = ("local-host", "local-port", "remote-host", "remote-port")


class _BrokenSection(Exception):
    """A section without the keys that make it what it should be, or with impossible ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What answers at the socket (`version`)."""

    daemon: str
    version: str
    """Such as 5.9.8."""
    kernel: str


class Decoder:
    """Decodes sections, and counts those that made no sense."""

    def __init__(self) -> None:
        self.skipped = 0

    def ike_sas(self, section: Section) -> tuple[IkeSa, ...]:
        """The IKE_SAs of a `list-sa` event (one each, by connection name)."""
        return tuple(self._each_ike(section))

    def event(self, name: str, section: Section) -> tuple[Event, ...]:
        """The events that one VICI event tells of: one, or none when it is broken or of no interest."""
        up = section.get("up") == b"yes"
        match name:
            case "ike-updown":
                return tuple(IkeUp(ike) if up else IkeDown(ike) for ike in self._each_ike(section))
            case "child-updown":
                return tuple(
                    ChildUp(ike) if up else ChildDown(ike) for ike in self._each_ike(section) if ike.children
                )
            case "ike-rekey":
                return tuple(self._ike_rekeys(section))
            case "child-rekey":
                return tuple(self._child_rekeys(section))
            case "ike-update":
                return tuple(self._ike_moves(section))
            case _:
                return ()

    def alert(self, section: Section) -> tuple[str, str, int] | None:
        """Type, connection and unique id of an `alert` that concerns an IKE_SA."""
        kind = text(section, "type")
        for name, body in _sections(_inner(section, "ike-sa")):
            try:
                return kind, name, _number(body, "uniqueid")
            except _BrokenSection:
                self.skipped += 1
        return None

    def connection(self, section: Section) -> tuple[LoadedConnection, ...]:
        """The connections of a `list-conn` event (one each)."""
        return tuple(
            LoadedConnection(
                name=sys.intern(name),
                children=tuple(sys.intern(child) for child, _ in _sections(_inner(body, "children"))),
            )
            for name, body in _sections(section)
        )

    def _each_ike(self, section: Section) -> Iterator[IkeSa]:
        for name, body in _sections(section):
            try:
                yield _ike(name, body, tuple(self._each_child(body)))
            except _BrokenSection:
                self.skipped += 1

    def _each_child(self, body: Section) -> Iterator[ChildSa]:
        for key, child in _sections(_inner(body, "child-sas")):
            try:
                yield _child(key, child)
            except _BrokenSection:
                self.skipped += 1

    def _old_child(self, key: str, pair: Section) -> Iterator[ChildSa]:
        """With its last counters; that it was replaced is true without them."""
        with contextlib.suppress(_BrokenSection):
            yield _child(key, _inner(pair, "old"))

    def _ike_rekeys(self, section: Section) -> Iterator[IkeRekeyed]:
        for name, body in _sections(section):
            try:
                old_id = _number(_inner(body, "old"), "uniqueid")
                yield IkeRekeyed(old_id, _ike(name, _inner(body, "new"), ()))
            except _BrokenSection:
                self.skipped += 1

    def _ike_moves(self, section: Section) -> Iterator[IkeMoved]:
        # The top level holds where it goes, the section of the IKE_SA where it still is.
        where = {key: section[key] for key in _ENDPOINTS if key in section}
        for ike in self._each_ike({name: body | where for name, body in _sections(section)}):
            yield IkeMoved(ike)

    def _child_rekeys(self, section: Section) -> Iterator[ChildRekeyed]:
        for name, body in _sections(section):
            for key, pair in _sections(_inner(body, "child-sas")):
                try:
                    new = _child(key, _inner(pair, "new"))
                    old_id = _number(_inner(pair, "old"), "uniqueid")
                    yield ChildRekeyed(_ike(name, body, tuple(self._old_child(key, pair))), old_id, new)
                except _BrokenSection:
                    self.skipped += 1


def version(section: Section) -> Version:
    """The reply to `version`."""
    return Version(
        daemon=text(section, "daemon"),
        version=text(section, "version"),
        kernel=f"{text(section, 'sysname')} {text(section, 'release')}".strip(),
    )


def algorithms(section: Section) -> frozenset[str]:
    """What charon has plugins for, from the reply to `get-algorithms`: encryption, integrity, pseudo-random
    functions and key exchanges by charon's names, which differ from kind to kind."""
    names = {MORE_KEY_EXCHANGES} if "ke" in section else set()
    for kind in ("encryption", "aead", "integrity", "prf", "ke", "dh"):  # "dh" is what "ke" was before 6.0
        names |= _inner(section, kind).keys()
    return frozenset(names)


def running_since(section: Section) -> float | None:
    """When charon started, in seconds since the epoch, from the reply to `stats`; None if it is not told.

    charon prints local time without a zone ("%b %d %H:%M:%S %Y", libstrongswan utils/utils/time.c), so this
    takes charon's time zone to be ours.
    """
    since = text(_inner(section, "uptime"), "since")
    try:
        return time.mktime(time.strptime(since, "%b %d %H:%M:%S %Y"))
    except (ValueError, OverflowError):
        return None


def key_ids(section: Section) -> frozenset[str]:
    """The reply to `get-keys`: SHA-1 key ids in hex, without separators."""
    return frozenset(key.replace(":", "").lower() for key in texts(section, "keys"))


def certificate(section: Section) -> tuple[bytes, ...]:
    """The DER of the certificate or revocation list in a `list-cert` event; nothing if there is none."""
    data = section.get("data")
    return (data,) if isinstance(data, bytes) else ()


def text(section: Section, key: str) -> str:
    """The value of `key`, empty if there is none."""
    value = section.get(key)
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def texts(section: Section, key: str) -> tuple[str, ...]:
    """The list under `key`, empty if there is none."""
    value = section.get(key)
    if not isinstance(value, list):
        return ()
    return tuple(sys.intern(item.decode(errors="replace")) for item in value)


def _word(section: Section, key: str) -> str:
    """As `text`, for what thousands of associations or the next look have alike: one string serves all."""
    return sys.intern(text(section, key))


def number(section: Section, key: str) -> int | None:
    """The value of `key` as a number, None if there is none or it is no number."""
    value = section.get(key)
    # int() takes megabytes of digits, underscores and spaces; charon's largest number is 20 digits.
    if isinstance(value, bytes) and len(value) <= 20 and value.removeprefix(b"-").isdigit():
        return int(value)
    return None


def _number(section: Section, key: str) -> int:
    value = number(section, key)
    if value is None or value < 0:
        raise _BrokenSection(key)
    return value


def _count(section: Section, key: str) -> int:
    return _number(section, key) if key in section else 0


def _seconds(section: Section, key: str) -> float | None:
    value = number(section, key)
    return None if value is None else float(value)


def _inner(section: Section, key: str) -> Section:
    value: Any = section.get(key)
    return value if isinstance(value, dict) else {}


def _sections(section: Section) -> Iterator[tuple[str, Section]]:
    return ((key, value) for key, value in section.items() if isinstance(value, dict))


def _ike(name: str, body: Section, children: tuple[ChildSa, ...]) -> IkeSa:
    state = _word(body, "state")
    if not state:
        raise _BrokenSection("state")
    return IkeSa(
        unique_id=_number(body, "uniqueid"),
        connection=sys.intern(name),
        state=state,
        initiator=body.get("initiator") == b"yes",
        spi_initiator=text(body, "initiator-spi"),
        spi_responder=text(body, "responder-spi"),
        local_host=_word(body, "local-host"),
        remote_host=_word(body, "remote-host"),
        local_id=_word(body, "local-id"),
        remote_id=_word(body, "remote-id"),
        nat_local=body.get("nat-local") == b"yes",
        nat_remote=body.get("nat-remote") == b"yes",
        algorithm=_algorithm(body),
        children=children,
        tasks_active=texts(body, "tasks-active"),
        tasks_passive=texts(body, "tasks-passive"),
        tasks_queued=texts(body, "tasks-queued"),
        age=_seconds(body, "established"),
        rekey_in=_seconds(body, "rekey-time"),
        reauth_in=_seconds(body, "reauth-time"),
    )


def _child(key: str, body: Section) -> ChildSa:
    state = _word(body, "state")
    if not state:
        raise _BrokenSection("state")
    return ChildSa(
        unique_id=_number(body, "uniqueid"),
        name=_word(body, "name") or key,
        state=state,
        mode=_word(body, "mode"),
        protocol=_word(body, "protocol") or "ESP",
        encap=body.get("encap") == b"yes",
        reqid=_count(body, "reqid"),
        spi_in=text(body, "spi-in"),
        spi_out=text(body, "spi-out"),
        algorithm=_algorithm(body),
        local_ts=texts(body, "local-ts"),
        remote_ts=texts(body, "remote-ts"),
        bytes_in=_count(body, "bytes-in"),
        bytes_out=_count(body, "bytes-out"),
        packets_in=_count(body, "packets-in"),
        packets_out=_count(body, "packets-out"),
        age=_seconds(body, "install-time"),
        rekey_in=_seconds(body, "rekey-time"),
    )


def _algorithm(body: Section) -> str:
    """As charon's log writes it: AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519, AES_GCM_16-128/ESN."""
    parts = []
    for algorithm, keysize in (("encr-alg", "encr-keysize"), ("integ-alg", "integ-keysize")):
        if name := text(body, algorithm):
            size = text(body, keysize)
            parts.append(f"{name}-{size}" if size else name)
    parts += [name for key in ("prf-alg", "dh-group") if (name := text(body, key))]
    parts += [name for index in range(1, 8) if (name := text(body, f"ake{index}"))]
    if body.get("esn") == b"1":
        parts.append("ESN")
    return sys.intern("/".join(parts))
