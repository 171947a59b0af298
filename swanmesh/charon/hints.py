"""Lines of charon's log that hint at somebody else taking away what we loaded: no event tells of it.

Not every way leaves a line: `clear-creds` and a connection unloaded without trap leave none (strongSwan 5.9.8
and 6.0.6, plugins/vici/vici_cred.c, vici_config.c). Those show when charon is looked at.
"""

from __future__ import annotations

import re

from swanmesh.charon.codec import Section
from swanmesh.charon.messages import text
from swanmesh.core.model import shown
from swanmesh.core.observed import Hint
from swanmesh.core.reasons import Reason

_KEY = "unloaded private key with id"
_TRAP = re.compile(r"uninstalling '(\S+)'")
_HINTING = re.compile(rf"{_KEY}|uninstalling '".encode())


def may_hint(payload: bytes) -> bool:
    """Whether an encoded `log` event can be a hint."""
    return _HINTING.search(payload) is not None


def from_log(section: Section) -> Hint | None:
    """What a `log` event hints at, if it does."""
    line = text(section, "msg")
    if line.startswith(_KEY):
        return Hint(child="", reason=Reason("key-unloaded", "somebody unloaded a private key from charon"))
    if match := _TRAP.match(line):
        return Hint(child=match[1], reason=Reason("uninstalled", f"charon uninstalled {shown(match[1])}"))
    return None
