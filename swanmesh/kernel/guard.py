"""The guard beyond this process: the file that the next boot puts into the kernel, and the kernel's own
word."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Iterable
from pathlib import Path

from swanmesh.core.guard.policies import OWNER, Part, policies_of
from swanmesh.core.xfrm import XfrmPolicy
from swanmesh.files.write import Change, make_folder, write_whole
from swanmesh.kernel import boot, netlink, packet_filter
from swanmesh.kernel.requests import holdings

FILE = "guard"
"""Its name in the service's own folder."""
_STATISTICS = Path("/proc/self/net/xfrm_stat")
"""Documentation/networking/xfrm_proc.rst."""
_REFUSED = {"out": "XfrmOutPolBlock", "in": "XfrmInPolBlock", "in_expected_encrypted": "XfrmInTmplMismatch"}


def write_file(folder: Path, parts: Iterable[Part]) -> None:
    """Keep these parts for the next boot, whole or not at all. Raises NotWritten."""
    policies = [policy for part in parts for policy in policies_of(part).values()]
    make_folder(folder, 0o700)
    content = b"".join(netlink.changes(sorted(policies, key=lambda policy: policy.priority), ()))
    write_whole([Change(path=folder / FILE, content=content, mode=0o600)])


def standing() -> list[XfrmPolicy]:
    """The guard's policies in this kernel; none where it has no IPsec. Raises OSError."""
    try:
        held = asyncio.run(holdings())
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            return []
        raise
    return [policy for policy in held.policies if policy.owner == OWNER]


def kept(folder: Path) -> list[XfrmPolicy]:
    """What the next boot would install. Raises OSError."""
    content = (folder / FILE).read_bytes()
    found = (netlink.policy(message.body) for message in netlink.messages(content))
    return [policy for policy in found if policy is not None]


def clear(folder: Path) -> int:
    """Take the guard out of the kernel, and from the next boot, and let UDP 4500 in. Returns how many
    policies went. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        (folder / FILE).unlink()
    packet_filter.remove()
    if policies := standing():
        boot.apply(b"".join(netlink.changes((), policies)))
    return len(policies)


def refusals() -> dict[str, int]:
    """Packets that policies which block refused since the kernel started, the guard's or others', by
    direction: it counts for the whole host alone. Raises OSError."""
    numbers = dict(line.split() for line in _STATISTICS.read_text().splitlines())
    return {way: int(numbers.get(name, 0)) for way, name in _REFUSED.items()}
