"""Changing several files at once: each whole or not at all, all of them or none.

A file is written under a name that readers pass over, brought to the disk, and renamed over the old one. What
was there stays linked under another such name until all is done, so that a failure puts everything back. A
kill in the middle leaves whole files, some of them new: the same change again completes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path

TEMPORARY = ".swanmesh-"
"""How the names of unfinished files begin."""

_REMEDIES = {
    errno.ENOSPC: "free some space on that file system and try again",
    errno.EDQUOT: "free some space within the quota and try again",
    errno.EROFS: "mount that file system writable and try again",
    errno.EACCES: "run it as root or as the owner of the directory",
    errno.EPERM: "run it as root or as the owner of the directory",
    errno.ENOENT: "create the directory first",
    errno.ENOTDIR: "correct the path: a part of it is no directory",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and try again",
}


class NotWritten(Exception):
    """Files could not be written or removed; everything is as it was before."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: not written: {reason}; {remedy} (nothing was changed)")
        self.path = path
        self.reason = reason
        self.remedy = remedy


class Replacement:
    """Many files get new content at once, or keep the old."""

    def __init__(self, changes: Sequence[tuple[Path, bytes | None]]) -> None:
        # Rename replaces a link, not what it points to: follow it first.
        self._changes = [(path.resolve(), content) for path, content in changes]
        self._temporaries: list[Path | None] = []
        self._undo: list[tuple[Path, Path | None]] = []

    def carry_out(self) -> None:
        """Raises NotWritten, having put everything back."""
        current = Path()
        try:
            for current, content in self._changes:
                self._prepare(current, content)
            for (current, _), temporary in zip(self._changes, self._temporaries, strict=True):
                self._exchange(current, temporary)
            for current in {path.parent for path, _ in self._changes}:
                _sync_directory(current)
        except BaseException as error:
            self._roll_back()
            if isinstance(error, OSError):
                raise not_written(current, error) from None
            raise
        for _, backup in self._undo:
            _discard(backup)

    def _prepare(self, path: Path, content: bytes | None) -> None:
        if content is None:
            self._temporaries.append(None)
            return
        temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{len(self._temporaries)}.tmp"
        self._temporaries.append(temporary)
        _write_through(temporary, content)

    def _exchange(self, path: Path, temporary: Path | None) -> None:
        backup = None
        if path.exists():
            backup = path.parent / f"{TEMPORARY}{os.getpid()}-{len(self._undo)}.old"
            os.link(path, backup)
        self._undo.append((path, backup))
        if temporary is None:
            path.unlink()
        else:
            temporary.replace(path)

    def _roll_back(self) -> None:
        for path, backup in reversed(self._undo):
            with contextlib.suppress(OSError):
                if backup is None:
                    path.unlink(missing_ok=True)
                else:
                    # Where the two are still one file, rename leaves both names: see rename(2).
                    backup.replace(path)
            _discard(backup)
        for temporary in self._temporaries:
            _discard(temporary)


def _write_through(path: Path, content: bytes) -> None:
    """Create `path` with `content` and bring it to the disk. Raises OSError."""
    # Left over from a killed process of the same id, in a directory that `_sweep` did not see.
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.fchmod(fd, 0o644)
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


def _discard(path: Path | None) -> None:
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def not_written(path: Path, error: OSError) -> NotWritten:
    """The system's error in words, with its remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "look at the file system and try again")
    return NotWritten(path, (error.strerror or str(error)).lower(), remedy)
