"""From where people are logged in over SSH, as the kernel and the processes above this one tell (proc(5))."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from pathlib import Path

from swanmesh.core.model import Address

_SSH_PORT = 22
_ESTABLISHED = "01"
"""TCP_ESTABLISHED in linux/tcp.h, as /proc/net/tcp writes it."""


def ssh_peers(*, proc: Path = Path("/proc")) -> frozenset[Address]:
    """The other ends of all connections to port 22 of this host, and of the session that this process runs
    in, whatever its port. What cannot be read counts for nothing."""
    found: set[Address] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                local, remote, state = line.split(maxsplit=4)[1:4]
                if state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == _SSH_PORT:
                    found.add(_address(remote.partition(":")[0]))
    session = os.environ.get("SSH_CONNECTION") or _inherited(proc)
    with contextlib.suppress(ValueError, IndexError):
        found.add(_plain(ipaddress.ip_address(session.split()[0])))
    return frozenset(found)


def _inherited(proc: Path) -> str:
    """SSH_CONNECTION of the nearest process above this one that has it: sudo takes it away."""
    pid = os.getppid()
    with contextlib.suppress(OSError, ValueError, IndexError):
        while pid > 1:
            for variable in (proc / str(pid) / "environ").read_bytes().split(b"\0"):
                if variable.startswith(b"SSH_CONNECTION="):
                    return variable.partition(b"=")[2].decode(errors="replace")
            pid = int((proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return ""


def _address(words: str) -> Address:
    """/proc/net/tcp and tcp6 have an address as words of 32 bits in the machine's order."""
    places = range(0, len(words), 8)
    packed = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in places)
    return _plain(ipaddress.ip_address(packed))


def _plain(address: Address) -> Address:
    """An IPv4 address where a socket for both families has it as one of IPv6."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
