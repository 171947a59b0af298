"""Who else could change what stands at a path."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_MOST_LINKS = 40
"""Symbolic links followed in one path, as many as the kernel follows: MAXSYMLINKS in linux/namei.h."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def distrust(path: Path) -> str:
    """Why others than root and this process's user could change what stands at `path`, and the remedy; empty
    if nobody else can.

    Every folder and symbolic link on the way counts: who may rename one of them may put anything there.
    Raises OSError if it cannot be looked at.
    """
    at = Path("/")
    ahead = list(reversed(path.absolute().parts[1:]))
    fault = _fault(at, at.lstat(), last=not ahead)
    links = 0
    while ahead and not fault:
        part = ahead.pop()
        # All up to here is resolved, so the folder above is the one in its name.
        at = at.parent if part == ".." else at / part
        status = at.lstat()
        fault = _fault(at, status, last=not ahead)
        if stat.S_ISLNK(status.st_mode) and not fault:
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = at.readlink()
            at = Path("/") if target.is_absolute() else at.parent
            ahead.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
    return fault


def _fault(path: Path, status: os.stat_result, *, last: bool) -> str:
    """What is wrong with this one part of the way."""
    if status.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to user {status.st_uid}; if it may be trusted, run: chown root {path}"
    if stat.S_ISLNK(status.st_mode) or not status.st_mode & _OTHERS_WRITE:
        return ""
    if not last and stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        # Sticky, as /tmp: others may add to it, but not replace what is ours.
        return ""
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    return f"{path} can be changed by others (mode {mode}); run: chmod go-w {path}"
