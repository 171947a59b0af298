"""Keys and certificates as files: read with care, written whole or not at all, replaced only on demand."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from swanmesh.core.model import InvalidInput, Problem

LIMIT = 1024 * 1024

_WIDE_OPEN = stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH
_REMEDIES = {
    errno.ENOENT: "create it (see `swanmesh ca`) or correct the path",
    errno.EACCES: "let the service's user read it",
    errno.ELOOP: "correct the symbolic link, which leads back to itself",
    errno.ENOTDIR: "correct the path: a part of it is no directory",
}


class NotStored(Exception):
    """A key or certificate could not be written; what was there is untouched."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: not written: {reason}; {remedy}")
        self.path = path
        self.reason = reason
        self.remedy = remedy


def read(path: Path, key: str, *, secret: bool = False) -> bytes:
    """The content of a regular file that `key` of the configuration names.

    A secret that others may read or anybody else may write is refused. Raises InvalidInput.
    """
    try:
        # Without O_NONBLOCK the open itself would wait for a pipe's other end.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _unreadable(path, key, error) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(path, key, "is not a regular file", "put a plain file in its place")
        if status.st_size > LIMIT:
            raise _refusal(path, key, "is larger than 1 MiB", "name the right file")
        if secret and status.st_mode & _WIDE_OPEN:
            mode = f"has mode {stat.S_IMODE(status.st_mode):04o}: others can read or change it"
            raise _refusal(path, key, mode, f"run: chmod 0600 {path}")
        with open(fd, "rb", closefd=False) as file:
            return file.read(LIMIT)
    except OSError as error:
        raise _unreadable(path, key, error) from None
    finally:
        os.close(fd)


def _refusal(path: Path, key: str, message: str, remedy: str) -> InvalidInput:
    return InvalidInput(Problem(str(path), key, "", message, remedy))


def _unreadable(path: Path, key: str, error: OSError) -> InvalidInput:
    reason = (error.strerror or str(error)).lower()
    remedy = _REMEDIES.get(error.errno or 0, "make it readable for the service")
    return _refusal(path, key, f"cannot be read: {reason}", remedy)


def write(files: Sequence[tuple[Path, bytes, int]], *, replace: bool = False) -> None:
    """Write these files (path, content, mode) through the disk: all, or none.

    No content is ever visible under a wider mode or in part. Raises NotStored, also for a file that exists,
    save with `replace`.
    """
    prepared: list[Path] = []
    placed: list[Path] = []
    path = Path()
    try:
        for path, content, mode in files:
            prepared.append(path.parent / f".swanmesh-{secrets.token_hex(8)}.tmp")
            _write_through(prepared[-1], content, mode)
        for (path, _, _), temporary in zip(files, prepared, strict=True):
            if replace:
                temporary.replace(path)
            else:
                # link, unlike rename, fails if the name is taken.
                os.link(temporary, path)
                placed.append(path)
        for path in {path.parent for path, _, _ in files}:
            _sync_directory(path)
    except OSError as error:
        _discard(placed)
        raise _not_stored(path, error) from None
    finally:
        _discard(prepared)


def _not_stored(path: Path, error: OSError) -> NotStored:
    if isinstance(error, FileExistsError):
        remedy = "choose another place, or remove it first if nothing needs it"
        return NotStored(path, "it exists already", remedy)
    return NotStored(path, (error.strerror or str(error)).lower(), "correct that and try again")


def _discard(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _write_through(path: Path, content: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(fd, mode)
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
