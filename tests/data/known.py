"""Faults of kernels that are known, and by which version: where one shows, the test is expected to fail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a kernel does wrong, and in which checks it shows."""

    versions: tuple[str, ...]
    """What the version of a kernel begins with that has it."""
    where: dict[str, Any]
    """Facts of the checks that may show it; what a check does not tell of itself may be so."""
    words: str
    """What such a check says."""
    surely: tuple[str, ...]
    """Checks that show it each time: where they hold, the kernel is mended."""
    reason: str

    def concerns(self, kernel: str, check: dict[str, Any]) -> bool:
        """Whether it may show there."""
        return kernel.startswith(self.versions) and all(
            check.get(key) in (None, value) for key, value in self.where.items()
        )


FAULTS = (
    Fault(
        versions=("6.1.", "6.12."),
        where={"family": 6, "offload": True, "encap": False},
        words="IVs came with other contents",
        surely=("tcp", "tcp the other way"),
        reason="esp6_offload takes the number after a packet's own for its IV (esp6_xmit in "
        "net/ipv6/esp6_offload.c; so it is in 6.1.192, 6.12.117 and 7.2.13 of Debian)",
    ),
    Fault(
        versions=("6.1.", "6.12."),
        where={"offload": True},
        words="lost at the rollover",
        surely=("sequence numbers past 2^32",),
        reason="esp4_offload and esp6_offload raise the upper half of the number one packet too soon "
        "(esp_xmit in net/ipv4/esp4_offload.c), which loses one packet each way in 2^32",
    ),
)


def unknown(kernel: str, checks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The checks that failed for no known reason."""
    for check in checks:
        if not check["ok"] and not any(
            fault.concerns(kernel, check) and fault.words in check["detail"] for fault in FAULTS
        ):
            yield check


def shown(kernel: str, checks: Iterable[dict[str, Any]]) -> list[str]:
    """Why some failed, of what is known."""
    failed = [check for check in checks if not check["ok"]]
    return [
        fault.reason
        for fault in FAULTS
        if any(fault.concerns(kernel, check) and fault.words in check["detail"] for check in failed)
    ]


def mended(kernel: str, checks: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Checks that hold and are known not to, with why they should not."""
    for check in checks:
        for fault in FAULTS:
            if check["ok"] and check["name"] in fault.surely and fault.concerns(kernel, check):
                yield f"{check['name']}: {fault.reason}"
