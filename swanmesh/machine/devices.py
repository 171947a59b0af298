"""The network device that a peer is reached through."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swanmesh.core.model import AddressPair

_DEVICES = Path("/sys/class/net")
_ANSWER = 5.0
"""Seconds that ip(8) may take."""


@dataclass(frozen=True, slots=True)
class Device:
    """Its MTU in bytes, and its speed in Mbit/s: None where it has none, as many virtual ones."""

    mtu: int
    speed: int | None


def device(addresses: AddressPair) -> Device:
    """What the kernel routes this pair's packets through. Raises OSError."""
    try:
        name = str(_shown("route", "get", str(addresses.remote), "from", str(addresses.local))["dev"])
        return Device(int(_shown("link", "show", "dev", name)["mtu"]), speed(name))
    except (subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        raise OSError(f"no route to {addresses.remote} is shown: {error}") from None


def speed(name: str, devices: Path = _DEVICES) -> int | None:
    """In Mbit/s. EINVAL, or -1, is what a device says that knows none or is down."""
    try:
        found = int((devices / name / "speed").read_text())
    except (OSError, ValueError):
        return None
    return found if found > 0 else None


def _shown(*words: str) -> Any:
    done = subprocess.run(["ip", "-j", *words], capture_output=True, timeout=_ANSWER, check=True)  # noqa: S607
    return json.loads(done.stdout)[0]
