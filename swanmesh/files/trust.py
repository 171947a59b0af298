"""Who else could change what stands at a path."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from swanmesh.core.model import Problem

_MOST_LINKS = 40
"""Symbolic links followed in one path, as many as the kernel follows: MAXSYMLINKS in linux/namei.h."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something is not to be trusted, and what to do about it."""

    path: Path
    """The file, folder or link on the way to it that is at fault."""
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path} {self.message}; {self.remedy}"

    def problem(self, file: Path, key: str = "") -> Problem:
        """As what is wrong with `file`, which `key` of the configuration names."""
        message = self.message if self.path == file else f"{self.path} {self.message}"
        return Problem(str(file), key, "", message, self.remedy)


def distrust(path: Path) -> str:
    """`find_fault` as text; empty if nobody else can change what stands at `path`."""
    return str(find_fault(path) or "")


def find_fault(path: Path) -> Fault | None:
    """Why others than root and this process's user could change what stands at `path`, or put something else
    there; None if nobody can.

    Every folder and symbolic link on the way counts: who may rename one of them may put anything there.
    Raises OSError if it cannot be looked at.
    """
    at = Path("/")
    ahead = list(reversed(path.absolute().parts[1:]))
    fault = fault_of(at, at.lstat(), last=not ahead)
    links = 0
    while ahead and not fault:
        part = ahead.pop()
        # All up to here is resolved, so the folder above is the one in its name.
        at = at.parent if part == ".." else at / part
        status = at.lstat()
        fault = fault_of(at, status, last=not ahead)
        if stat.S_ISLNK(status.st_mode) and not fault:
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = at.readlink()
            at = Path("/") if target.is_absolute() else at.parent
            ahead.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
    return fault


def fault_of(path: Path, status: os.stat_result, *, last: bool = True) -> Fault | None:
    """What is wrong with this one part of the way."""
    if status.st_uid not in (0, os.geteuid()):
        remedy = f"if it may be trusted, run: chown root {path}"
        return Fault(path, f"belongs to user {status.st_uid}", remedy)
    if stat.S_ISLNK(status.st_mode) or not status.st_mode & _OTHERS_WRITE:
        return None
    if not last and stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        # Sticky, as /tmp: others may add to it, but not replace what is ours.
        return None
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    return Fault(path, f"can be changed by others (mode {mode})", f"run: chmod go-w {path}")
