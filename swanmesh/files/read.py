"""Reading a file: whole, of bounded size, never waiting, and trusted only if nobody else could write it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from swanmesh.core.model import InvalidInput, Problem
from swanmesh.files.errors import reading_remedy, words
from swanmesh.files.trust import Fault, fault_of, find_fault

_OTHERS_READ_OR_WRITE = stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH


def read_bytes(path: Path, limit: int, *, key: str = "") -> bytes:
    """The content of a regular file of at most `limit` bytes; a pipe or a device is refused, not waited for.

    `key` is what names the file in the configuration, for the problem. Raises InvalidInput.
    """
    return _read(path, limit, key, lambda _: None)


def read_trusted(
    path: Path, limit: int, *, key: str = "", secret: bool = False, folder: Path | None = None
) -> bytes:
    """The content of a file that decides what this host believes.

    One that others than root and this process's user could write or replace is refused, and so is a `secret`
    that others may read. `folder` was found trustworthy already: spares looking at it for each of its files.
    Raises InvalidInput.
    """

    def look(status: os.stat_result) -> Fault | None:
        if secret and status.st_mode & _OTHERS_READ_OR_WRITE:
            mode = f"has mode {stat.S_IMODE(status.st_mode):04o}: others can read or change it"
            return Fault(path, mode, f"run: chmod 0600 {path}")
        if path.parent == folder and not path.is_symlink():
            return fault_of(path, status)
        return find_fault(path) or fault_of(path, status)

    return _read(path, limit, key, look)


def check_folder(path: Path) -> Problem | None:
    """Why the files in this folder cannot be trusted; None if they can. Raises OSError."""
    fault = find_fault(path)
    return fault.problem(path) if fault is not None else None


def unreadable(path: Path, error: OSError, key: str = "") -> Problem:
    """The problem that `path` cannot be read, in words."""
    return Problem(str(path), key, "", f"cannot be read: {words(error)}", reading_remedy(error))


def _read(path: Path, limit: int, key: str, look: Callable[[os.stat_result], Fault | None]) -> bytes:
    try:
        # Without O_NONBLOCK the open itself would wait for a pipe's other end.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise InvalidInput(unreadable(path, error, key)) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            problem = Problem(str(path), key, "", "is not a regular file", "put a plain file in its place")
            raise InvalidInput(problem)
        if fault := look(status):
            raise InvalidInput(fault.problem(path, key))
        # One byte more than allowed tells a file that grew since it was looked at.
        data = b"" if status.st_size > limit else _read_up_to(fd, limit + 1)
    except OSError as error:
        raise InvalidInput(unreadable(path, error, key)) from None
    finally:
        os.close(fd)
    if (size := max(status.st_size, len(data))) > limit:
        message = f"is larger than {limit >> 20} MiB" if limit >> 20 else f"is larger than {limit >> 10} KiB"
        problem = Problem(str(path), key, f"{size} bytes", message, "correct it: such a file is small")
        raise InvalidInput(problem)
    return data


def _read_up_to(fd: int, limit: int) -> bytes:
    data = b""
    while len(data) < limit:
        more = os.read(fd, limit - len(data))
        if not more:
            break
        data += more
    return data
