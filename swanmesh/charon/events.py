"""From charon's event packets to the core's events.

Some lines of charon's log hint at somebody else taking away what we loaded: no event tells of it. Not every
way leaves a line: `clear-creds` leaves none, nor, before 6.0, a connection unloaded without trap (strongSwan
5.9.8 and 6.0.6, plugins/vici/vici_cred.c, vici_config.c, vici_control.c). They show in a look at charon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from swanmesh.charon.causes import Causes, may_tell
from swanmesh.charon.codec import Section, decode
from swanmesh.charon.messages import Decoder, text
from swanmesh.core.model import shown
from swanmesh.core.observed import Event, Hint
from swanmesh.core.reasons import Reason

_KEY = "unloaded private key with id"
_REMOVED = "removed vici connection: "
_UNLOADED = re.compile(r"(?:vici )?uninstalling '(\S+)'")
"""Said where a connection with a trap is unloaded or replaced. Without "vici" before 6.0."""
_UNINSTALLED = re.compile(r"vici uninstall '(\S+)'")
"""Said to an `uninstall`, which takes the trap away and leaves the connection."""
_HINTING = re.compile(rf"{_KEY}|{_REMOVED}|uninstall(?:ing)? '".encode())


class EventReader:
    """For one life of charon: what its log says of an IKE_SA counts together with what it said before."""

    def __init__(self, decoder: Decoder) -> None:
        """`decoder` counts the events that cannot be understood."""
        self._decoder = decoder
        self._causes = Causes()

    def read(self, name: str, payload: bytes) -> Iterable[Event]:
        """What the event packet of this name tells: nothing, in most lines of the log."""
        if name == "log" and not (may_tell(payload) or _may_hint(payload)):
            return ()
        try:
            section = decode(payload)
        except ValueError:
            self._decoder.skipped += 1
            return ()
        event: Event | None
        if name == "log":
            causes = self._causes
            event = causes.from_log(section) or causes.refused_initiation(section) or _hint(section)
        elif name == "alert":
            alert = self._decoder.alert(section)
            event = self._causes.from_alert(*alert) if alert else None
        else:
            return self._decoder.event(name, section)
        return (event,) if event else ()


def _may_hint(payload: bytes) -> bool:
    """Whether an encoded `log` event can be a hint."""
    return _HINTING.search(payload) is not None


def _hint(section: Section) -> Hint | None:
    """What a `log` event hints at, if it does."""
    line = text(section, "msg")
    if line.startswith(_KEY):
        return Hint(child="", reason=Reason("key-unloaded", "somebody unloaded a private key from charon"))
    if line.startswith(_REMOVED):
        name = line.removeprefix(_REMOVED)
        return Hint(child="", reason=Reason("unloaded", f"charon unloaded {shown(name)}"), unloaded=name)
    unloaded = _UNLOADED.match(line)
    if match := unloaded or _UNINSTALLED.match(line):
        child, reason = match[1], Reason("uninstalled", f"charon uninstalled {shown(match[1])}")
        return Hint(child=child, reason=reason, unloaded=child if unloaded else "")
    return None
