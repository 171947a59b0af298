"""Changing several files at once: each whole or not at all, all of them or none.

A file is written under a name that readers pass over, brought to the disk, and renamed over the old one. What
was there stays linked under another such name until all is done, so that a failure puts everything back. A
kill in the middle leaves whole files, some of them new: the same change again completes it. No symbolic link
is followed: what is written stands in the folder that was named.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swanmesh.files.errors import words, writing_remedy

TEMPORARY = ".swanmesh-"
"""How the names of unfinished files begin."""


class NotWritten(Exception):
    """Files could not be written or removed; everything is as it was before."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: not written: {reason}; {remedy} (nothing was changed)")


def not_written(path: Path, error: OSError) -> NotWritten:
    """The system's error in words, with its remedy."""
    reason = "it exists already" if isinstance(error, FileExistsError) else words(error)
    return NotWritten(path, reason, writing_remedy(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of one file."""

    path: Path
    content: bytes | None
    """None removes it."""
    mode: int = 0o644
    replace: bool = True
    """Whether a file that exists may be replaced."""


def make_folder(path: Path, mode: int) -> None:
    """Make the folder if only it is missing. Raises NotWritten, also where something else stands."""
    try:
        path.mkdir(mode=mode, exist_ok=True)
    except OSError as error:
        raise not_written(path, error) from None


def write_whole(changes: Sequence[Change]) -> None:
    """Carry out all changes or none. No content is ever visible in part, or under a wider mode than its own.

    Raises NotWritten, having put everything back.
    """
    with contextlib.ExitStack() as nameless:
        _write_all(changes, nameless)


def _write_all(changes: Sequence[Change], nameless: contextlib.ExitStack) -> None:
    """`nameless` closes the files that have no name yet: they vanish with that."""
    temporaries: list[Path | None] = []
    undo: list[tuple[Path, Path | None]] = []
    current = Path()
    try:
        for change in changes:
            current = change.path
            temporaries.append(None)
            if change.content is not None:
                hidden = _without_name(change, nameless)
                temporaries[-1] = temporary = hidden or _spare(current)
                _write_through(temporary, change.content, change.mode, made=hidden is not None)
        for change, temporary_of in zip(changes, temporaries, strict=True):
            current = change.path
            _exchange(change, temporary_of, undo)
        for current in {change.path.parent for change in changes}:
            sync_directory(current)
    except BaseException as error:
        _roll_back(undo)
        if isinstance(error, OSError):
            raise not_written(current, error) from None
        raise
    finally:
        for left in (*temporaries, *(backup for _, backup in undo)):
            _discard(left)


def _without_name(change: Change, nameless: contextlib.ExitStack) -> Path | None:
    """A file for a new secret, that a kill leaves nothing of; None where the file system knows no such."""
    if change.replace or change.mode & 0o077:
        return None
    try:
        fd = os.open(change.path.parent, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, change.mode)
    except OSError:
        return None
    nameless.callback(os.close, fd)
    path = Path(f"/proc/self/fd/{fd}")
    return path if path.exists() else None


def _spare(path: Path) -> Path:
    return path.parent / f"{TEMPORARY}{secrets.token_hex(8)}.tmp"


def _exchange(change: Change, temporary: Path | None, undo: list[tuple[Path, Path | None]]) -> None:
    path = change.path
    if temporary is not None and not change.replace:
        # link, unlike rename, fails if the name is taken.
        _link(temporary, path)
        undo.append((path, None))
        return
    backup = None
    if os.path.lexists(path):
        backup = _spare(path)
        os.link(path, backup, follow_symlinks=False)
    undo.append((path, backup))
    if temporary is None:
        path.unlink()
    else:
        temporary.replace(path)


def _link(file: Path, path: Path) -> None:
    """Give the file this name as well; one of /proc/self/fd as what it stands for (open(2), O_TMPFILE)."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Python takes linkat, which can follow that link, only where a folder's descriptor is given.
        os.link(file, path.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _roll_back(undo: list[tuple[Path, Path | None]]) -> None:
    for path, backup in reversed(undo):
        with contextlib.suppress(OSError):
            if backup is None:
                path.unlink(missing_ok=True)
            else:
                # Where the two are still one file, rename leaves both names: see rename(2).
                backup.replace(path)


def _write_through(path: Path, content: bytes, mode: int, *, made: bool) -> None:
    """Create `path`, unless it was `made`, with `content` and bring it to the disk. Raises OSError."""
    how = os.O_WRONLY if made else os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    fd = os.open(path, how | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _discard(path: Path | None) -> None:
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
