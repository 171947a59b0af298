"""Puts the guard into the kernel, at boot and before the network: swanmesh-guard.service runs this file by
itself.

It takes a file of netlink messages that the service keeps (`kernel/guard.py`), gives them to the kernel and
counts what is refused. Nothing but a few modules of the interpreter's own is imported, not even of this
package, so that it is done in a moment and works whatever becomes of the installation.
"""

import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator

_NETLINK_XFRM = 6
_HEADER = struct.Struct("=IHHII")
_ERROR = 2
_BATCH = 100
"""Messages in one call: as many answers as there is room for."""
_ANSWER = 10.0
"""Seconds that the kernel may take for one; it is a matter of microseconds."""


def untrusted(path: str) -> str:
    """Why others than root and this user could have written the file; empty if they could not."""
    while True:
        status = os.lstat(path)
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or stat.S_ISLNK(status.st_mode):
            return f"{path} is a link or belongs to user {status.st_uid}"
        if status.st_mode & 0o022 and not sticky:
            return f"{path} can be changed by others; run: chmod go-w {path}"
        if path == "/":
            return ""
        path = os.path.dirname(path)  # noqa: PTH120 - pathlib takes longer to import than all of this


def apply(content: bytes) -> list[int]:
    """Give all messages to the kernel. Returns the error number of each that it refused. Raises OSError where
    the kernel has no IPsec, or this process may not change it."""
    refused = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_XFRM) as kernel:
        kernel.settimeout(_ANSWER)
        waiting = 0
        batch = b""
        for message in (*_messages(content), b""):
            if batch and (waiting == _BATCH or not message):
                kernel.sendall(batch)
                refused += [number for number in _answers(kernel, waiting) if number]
                batch, waiting = b"", 0
            batch += message
            waiting += 1
    return refused


def _messages(content: bytes) -> Iterator[bytes]:
    """Each message; ValueError for what is none."""
    offset = 0
    while offset < len(content):
        length = _HEADER.unpack_from(content, offset)[0] if offset + _HEADER.size <= len(content) else 0
        if not _HEADER.size <= length <= len(content) - offset or length % 4:
            raise ValueError(f"is cut short or damaged at byte {offset}")
        yield content[offset : offset + length]
        offset += length


def _answers(kernel: socket.socket, count: int) -> Iterator[int]:
    """The kernel's answers to so many messages: 0, or what is wrong."""
    while count:
        data, offset = kernel.recv(1 << 16), 0
        while offset + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            if kind == _ERROR:
                count -= 1
                yield -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
            offset += (length + 3) & ~3


def main(path: str) -> int:
    """The exit status: 0 if all of it stands now, 1 if not."""
    try:
        path = os.path.abspath(path)  # noqa: PTH100
        if fault := untrusted(path):
            raise ValueError(f"is not believed: {fault}")
        with open(path, "rb") as file:  # noqa: PTH123
            refused = apply(file.read())
        if refused:
            raise ValueError(f"{len(refused)} policies were refused: {os.strerror(refused[0])}")
    except (OSError, ValueError) as error:
        print(f"{path}: {error}; `swanmesh guard status` shows what stands", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
