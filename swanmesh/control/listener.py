"""The control socket as a file: made safely, replaced when stale, never when live, removed if still ours.

A lock file beside the socket (`control.sock.lock`) is held as long as the service lives. It decides between
two services that start at once, and between a hung service and a dead one, which a connect probe alone
cannot.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import grp
import os
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

MODE = 0o660
BACKLOG = 1024
_SO_PEERGROUPS = 59
"""asm-generic/socket.h, Linux 4.13 and later; not in Python's socket module."""
_GROUPS_LIMIT = 256
"""What fits into the 1024 bytes that Python's getsockopt gives at most."""
_PROBE_TIME = 1.0
_PATH_LIMIT = 107
"""struct sockaddr_un: 108 bytes with the closing zero (unix(7))."""


class SocketUnusable(Exception):
    """The control socket cannot be made at `path`; says why and what to do."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}; {remedy}")
        self.path = path
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a connection, as the kernel noted it when the connection was made."""

    pid: int
    uid: int
    groups: frozenset[int]


@dataclass(slots=True)
class Listener:
    """The bound and listening socket, with what is needed to take it away again."""

    path: Path
    sock: socket.socket
    group: int | None
    identity: tuple[int, int]
    lock: int

    def close(self) -> None:
        """Close, and remove the file if it is still the one that was made here."""
        self.sock.close()
        with contextlib.suppress(OSError):
            if _identity(self.path) == self.identity:
                self.path.unlink()
        # The lock file stays: removing it would let two services lock two different files of one name.
        os.close(self.lock)


def listen(path: Path, group: str | None) -> Listener:
    """Make the control socket: mode 0660, owner the caller, group `group` (None leaves the caller's group).

    Raises SocketUnusable: the folder can be written by others, the path is no socket, too long or in use, or
    the group does not exist.
    """
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise SocketUnusable(
            path,
            f"longer than the {_PATH_LIMIT} bytes that a Unix socket's path may have",
            "set control.socket to a shorter path",
        )
    gid = _group_id(path, group)
    _check_directory(path)
    lock = _take_lock(path)
    try:
        _clear_stale(path)
        sock, identity = _bind(path, gid)
    except OSError as error:
        os.close(lock)
        raise SocketUnusable(path, error.strerror or str(error), "correct control.socket") from None
    except SocketUnusable:
        os.close(lock)
        raise
    return Listener(path, sock, gid, identity, lock)


def caller_of(sock: socket.socket) -> Caller:
    """SO_PEERCRED and SO_PEERGROUPS of a connected Unix socket (unix(7), socket(7)).

    Both are what the caller had when it connected, without asking any name service.
    """
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    groups = array.array("I")
    # Of a caller in more groups than the buffer holds (ERANGE) only the primary one counts.
    with contextlib.suppress(OSError):
        groups.frombytes(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_LIMIT * groups.itemsize))
    return Caller(pid, uid, frozenset({gid, *groups}))


def _group_id(path: Path, group: str | None) -> int | None:
    if group is None:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SocketUnusable(
            path,
            f"the group {group!r} of control.group does not exist",
            f"make it (groupadd --system {group}) or set control.group to one that exists",
        ) from None


def _check_directory(path: Path) -> None:
    """Whoever can write to the folder can put a socket of their own in place of ours."""
    parent = path.parent
    try:
        with contextlib.suppress(FileExistsError):
            parent.mkdir(mode=0o755)
        found = parent.stat()
    except OSError as error:
        reason = f"its folder cannot be used: {error.strerror}"
        raise SocketUnusable(path, reason, f"make {parent} or set control.socket to another place") from None
    if not stat.S_ISDIR(found.st_mode):
        raise SocketUnusable(path, f"{parent} is no folder", "set control.socket to another place")
    if found.st_uid not in (0, os.geteuid()):
        raise SocketUnusable(path, f"{parent} belongs to uid {found.st_uid}", f"chown root {parent}")
    by_others = found.st_mode & stat.S_IWOTH
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid())
    if by_others or by_group:
        raise SocketUnusable(path, f"{parent} can be written by others", f"chmod go-w {parent}")


def _take_lock(path: Path) -> int:
    lock_path = path.with_name(path.name + ".lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(lock_path, flags, 0o600)
    except OSError as error:
        reason = f"its lock file {lock_path} cannot be opened: {error.strerror}"
        raise SocketUnusable(path, reason, "remove what is in the way, or run as root") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise _in_use(path) from None
    return lock


def _in_use(path: Path) -> SocketUnusable:
    return SocketUnusable(
        path,
        "another service is using it",
        "stop that one first, or give this one its own control.socket",
    )


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises SocketUnusable for a live one and for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketUnusable(path, "exists and is no socket", "remove it, or set control.socket elsewhere")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIME)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except (BlockingIOError, TimeoutError):
            # A full backlog: somebody listens, however slowly.
            pass
    raise _in_use(path)


def _bind(path: Path, gid: int | None) -> tuple[socket.socket, tuple[int, int]]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(os.fspath(path))
        identity = _identity(path)
        # Nobody can connect before listen(), whatever mode the umask left.
        path.chmod(MODE)
        if gid is not None:
            os.chown(path, -1, gid)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock, identity


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
