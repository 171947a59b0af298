"""What this kernel has for segmentation through ESP (`core/segmentation.py`), and which cipher it takes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from socket import IPPROTO_ESP

from swanmesh.core.xfrm import Module, Segmenting, XfrmState

_LOADED = Path("/sys/module")
_CRYPTO = Path("/proc/crypto")
_CIPHER = "rfc4106(gcm(aes))"
"""As the kernel calls AES-GCM of ESP."""


def segmenting(states: Iterable[XfrmState]) -> tuple[Segmenting, ...]:
    """For both families, of these states."""
    made: dict[int, list[int]] = {4: [], 6: []}
    for state in states:
        if state.protocol == IPPROTO_ESP and state.made:
            made[state.destination.version].append(state.made)
    return tuple(_family(family, sorted(times)) for family, times in made.items())


def _family(family: int, made: list[int]) -> Segmenting:
    name = f"esp{family}_offload"
    found = module(name)
    users = _users(name)
    if found is not Module.LOADED or users is None:
        return Segmenting(family, found, len(made))
    without = max(0, len(made) - users)
    return Segmenting(family, found, len(made), without, made[without - 1] if without else 0)


def module(name: str, *, loaded: Path | None = None, modules: Path | None = None) -> Module:
    """How the kernel has it. `modules` is /lib/modules of the kernel that runs."""
    if ((loaded or _LOADED) / name / "initstate").exists():
        return Module.LOADED
    folder = modules if modules is not None else Path("/lib/modules") / os.uname().release
    try:
        if f"/{name}.ko" in (folder / "modules.builtin").read_text():
            return Module.BUILT_IN
        there = f"/{name}.ko" in (folder / "modules.dep").read_text()
    except OSError:
        return Module.UNKNOWN
    return Module.NOT_LOADED if there else Module.ABSENT


def _users(name: str) -> int | None:
    try:
        return int((_LOADED / name / "refcnt").read_text())
    except (OSError, ValueError):
        return None


def generic_cipher(path: Path = _CRYPTO) -> str:
    """The driver that the kernel would take for AES-GCM, if that uses no instructions for it; else empty.

    Empty too where it cannot be told: the kernel lists a cipher from its first use on."""
    best, driver = -1, ""
    try:
        blocks = path.read_text().split("\n\n")
    except OSError:
        return ""
    for block in blocks:
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        if fields.get("name") != _CIPHER or fields.get("internal") == "yes":
            continue
        priority = int(fields.get("priority", "0") or 0)
        if priority > best:
            best, driver = priority, fields.get("driver", "")
    return driver if "generic" in driver else ""
