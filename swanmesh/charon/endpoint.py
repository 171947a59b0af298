"""Opening charon's Unix socket, and saying in words why it cannot be opened."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import stat
from pathlib import Path

from swanmesh.charon.errors import CharonLost

_RETRY = 0.05


async def open_socket(path: Path, timeout: float) -> socket.socket:
    """A connected, non-blocking socket; CharonLost with the reason and the remedy."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        await _connect(sock, path, timeout)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(sock: socket.socket, path: Path, timeout: float) -> None:
    # asyncio takes EAGAIN for "under way", but a Unix socket whose backlog is full (charon's is 3)
    # is simply not connected then, and the kernel tells nobody when there is room again.
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        try:
            sock.connect(str(path))
            return
        except BlockingIOError:
            if loop.time() >= deadline:
                words = f"charon at {path} accepts no connection for {timeout:g} s: it hangs or is overloaded"
                raise CharonLost(words) from None
        except (OSError, ValueError) as error:
            raise CharonLost(_words(path, error)) from error
        await asyncio.sleep(_RETRY)


def _words(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no socket at {path}: charon is not running, or its vici plugin listens elsewhere"
    if isinstance(error, PermissionError):
        return f"permission denied on {path} ({_access(path)}): run as one who may write it"
    if isinstance(error, ConnectionRefusedError):
        # connect() gives the same error for a file of another kind.
        if not _is_socket(path):
            return f"{path} is not a socket: point charon's socket in swanmesh.yaml at the vici plugin's"
        return f"nobody listens at {path}: charon has stopped and left its socket behind"
    return f"cannot connect to {path}: {error}"


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _access(path: Path) -> str:
    """Who may use it: owner, group and mode of the first thing on the way that says no."""
    for place in (*reversed(path.parents), path):
        needed = os.X_OK if place != path else os.W_OK
        try:
            status = place.stat()
        except OSError:
            break
        if not os.access(place, needed):
            return (
                f"{place}: {_user(status.st_uid)}:{_group(status.st_gid)}, mode {status.st_mode & 0o7777:04o}"
            )
    return "by a rule other than its mode"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
