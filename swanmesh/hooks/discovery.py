"""The files of `hooks.d`: which of them are run, which are refused, and which are none."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from swanmesh.files.errors import reading_remedy, words
from swanmesh.files.trust import distrust

_NO_HOOK = re.compile(
    r"^[.#]|~$|\.dpkg-|\.ucf-|\.rpm(new|save|orig)$|\.(disabled|new|bak|orig|rej|swp|tmp)$", re.ASCII
)
"""Names of what editors, package managers and `make install` leave behind, and of what is switched off. As
run-parts(8) does, only that a dot within a name is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What `hooks.d` holds, each in order of name."""

    hooks: tuple[Path, ...] = ()
    """To be run, in this order."""
    refused: dict[Path, str] = field(default_factory=dict)
    """Would be run but must not, or the directory itself, and why."""
    skipped: dict[Path, str] = field(default_factory=dict)
    """No hooks, and why."""


def is_hook_name(name: str) -> bool:
    """Whether an executable of this name in `hooks.d` is a hook."""
    return not _NO_HOOK.search(name)


def find_hooks(directory: Path) -> Found:
    """Look at the directory. One that is not there holds no hooks; one that others may change holds none
    that may be run."""
    try:
        paths = [path for path in directory.iterdir() if is_hook_name(path.name)]
        fault = distrust(directory) if paths else ""
    except FileNotFoundError:
        return Found()
    except OSError as error:
        return Found(refused={directory: _unreadable(error)})
    if fault:
        return Found(refused={directory: f"none of its hooks is run: {fault}"})
    hooks: list[Path] = []
    refused: dict[Path, str] = {}
    skipped: dict[Path, str] = {}
    for path in sorted(paths, key=os.fsencode):  # whatever the language
        try:
            if reason := _no_hook(path):
                skipped[path] = reason
            elif fault := distrust(path):
                refused[path] = fault
            else:
                hooks.append(path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or path.is_symlink():
                refused[path] = _unreadable(error)
    return Found(hooks=tuple(hooks), refused=refused, skipped=skipped)


def _no_hook(path: Path) -> str:
    """Why this is not something to run; empty if it is. Raises OSError."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    # The mode is looked at as well: it is what a person sees, also where the file system allows no execution
    # (that is told when the hook is started).
    if not mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH):
        return f"is not executable; if it should run: chmod +x {path}"
    return ""


def _unreadable(error: OSError) -> str:
    remedy = {
        errno.ENOENT: "correct or remove the symbolic link, which leads to nowhere",
        errno.ENOTDIR: "put a directory there, or correct `hooks:` in swanmesh.yaml",
    }.get(error.errno or 0) or reading_remedy(error)
    return f"cannot be looked at: {words(error)}; {remedy}"
