"""Lines of charon's log that hint at somebody else taking away what we loaded: no event tells of it.

Not every way leaves a line: `clear-creds` leaves none, nor, before 6.0, a connection unloaded without trap
(strongSwan 5.9.8 and 6.0.6, plugins/vici/vici_cred.c, vici_config.c, vici_control.c). Those show when charon
is looked at.
"""

from __future__ import annotations

import re

from swanmesh.charon.codec import Section
from swanmesh.charon.messages import text
from swanmesh.core.model import shown
from swanmesh.core.observed import Hint
from swanmesh.core.reasons import Reason

_KEY = "unloaded private key with id"
_REMOVED = "removed vici connection: "
_UNLOADED = re.compile(r"(?:vici )?uninstalling '(\S+)'")
"""Said where a connection with a trap is unloaded or replaced. Without "vici" before 6.0."""
_UNINSTALLED = re.compile(r"vici uninstall '(\S+)'")
"""Said to an `uninstall`, which takes the trap away and leaves the connection."""
_HINTING = re.compile(rf"{_KEY}|{_REMOVED}|uninstall(?:ing)? '".encode())


def may_hint(payload: bytes) -> bool:
    """Whether an encoded `log` event can be a hint."""
    return _HINTING.search(payload) is not None


def from_log(section: Section) -> Hint | None:
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
