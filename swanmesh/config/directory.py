"""A folder of YAML files, one entry a file (`peers.d`, `blocks.d`), read with the work proportional to what
changed.

Entries are the files named `*.yaml`. Hidden names and an editor's (`*~`, `#*#`) are left alone; anything else
in the folder is a problem, for it may be an entry's file under a wrong name. What cannot be read, or not be
trusted, is told apart from what is not there: nothing is removed because it could not be looked at.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from swanmesh.config.documents import PEER_LIMIT, decode_document
from swanmesh.core.model import InvalidInput, Problem
from swanmesh.files.read import check_folder, read_trusted, unreadable

SUFFIX = ".yaml"

_RACY = 0.1
"""Seconds. A file changed so shortly before it was read may change again under the same time stamp (the
kernel's clock for files ticks every 1 to 10 ms), so its stamp proves nothing yet."""

_Stamp = tuple[int, int, int, int, int]


class Entry(Protocol):
    """What one file describes."""

    @property
    def source(self) -> str:
        """The file's path."""
        ...


E_co = TypeVar("E_co", bound=Entry, covariant=True)
E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan(Generic[E_co]):
    """What the folder holds. A file goes by its path as a string, the one that its entry has as its source: a
    `Path` for each of thousands weighs as much as the entries."""

    entries: Mapping[str, E_co]
    problems: tuple[Problem, ...]
    unreadable: frozenset[str]
    """Files that are there but say nothing valid: what held for them before goes on."""
    unread: tuple[str, ...]
    """What is there and is no entry's file, nor meant to be passed over."""
    complete: bool
    """False if the folder itself could not be read or trusted. `entries` then holds what was last read, and a
    file that is missing from it is not known to be gone."""


def is_entry_file(path: Path) -> bool:
    """Whether a file of this name describes an entry."""
    return path.name.endswith(SUFFIX) and not path.name.startswith(".")


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name.endswith("~") or (name.startswith("#") and name.endswith("#"))


def read_entry(path: Path, decode: Callable[[object, str], E], *, folder: Path | None = None) -> E:
    """What one file describes. `folder` was found trustworthy already.

    Raises FileNotFoundError if nothing stands at `path`, and InvalidInput if what it says is not valid or
    others could write it.
    """
    try:
        return decode(decode_document(read_trusted(path, PEER_LIMIT, folder=folder), str(path)), str(path))
    except InvalidInput:
        # A symbolic link to nowhere is a mistake; a name that is gone is a removal.
        if not os.path.lexists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        raise


class Directory(Generic[E]):
    """The folder with a memory of what each file says, so that only changed files are read again."""

    def __init__(
        self, path: Path, decode: Callable[[object, str], E], what: str, *, optional: bool = False
    ) -> None:
        """`what`: what a file describes, in words. `optional`: the folder need not be there, for as long as
        nothing was read from it."""
        self.path = path
        self._decode = decode
        self._what = what
        self._optional = optional
        self._stamps: dict[str, _Stamp] = {}
        self._entries: dict[str, E] = {}
        self._faults: dict[str, tuple[Problem, ...]] = {}
        self._unread: set[str] = set()
        self._directory_fault: Problem | None = None

    def scan(self) -> Scan[E]:
        """Look at every file; read those whose inode, size or time stamps changed."""
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries]
        except FileNotFoundError as error:
            spared = self._optional and not self._entries and not self._faults
            self._directory_fault = None if spared else unreadable(self.path, error)
            return self._answer()
        except OSError as error:
            self._directory_fault = unreadable(self.path, error)
            return self._answer()
        if self._directory_stands():
            found = {str(self.path / name) for name in names if not _is_passed_over(name)}
            for source in (self._entries.keys() | self._faults.keys() | self._unread) - found:
                self._forget(source)
            for source in sorted(found):
                self._refresh(source, trust_stamp=True)
        return self._answer()

    def look(self, paths: Iterable[Path]) -> Scan[E]:
        """The same answer after reading just these files again; what is not in this folder is passed over."""
        mine = sorted({path for path in paths if path.parent == self.path})
        if mine and self._directory_stands():
            for path in mine:
                if not _is_passed_over(path.name):
                    self._refresh(str(path), trust_stamp=False)
        return self._answer()

    def _directory_stands(self) -> bool:
        try:
            # The dot makes a plain file fail too.
            os.stat(f"{self.path}/.")  # noqa: PTH116 - Path drops the dot
            self._directory_fault = check_folder(self.path)
        except OSError as error:
            self._directory_fault = unreadable(self.path, error)
        return self._directory_fault is None

    def _refresh(self, source: str, *, trust_stamp: bool) -> None:
        path = Path(source)
        if not is_entry_file(path):
            (self._unread.add if os.path.lexists(path) else self._unread.discard)(source)
            return
        stamp = _stamp(path)
        if trust_stamp and stamp is not None and self._stamps.get(source) == stamp:
            return
        started = time.time()
        try:
            entry: E | None = read_entry(path, self._decode, folder=self.path)
            faults: tuple[Problem, ...] = ()
        except FileNotFoundError:
            # Gone for good only if it did not go with the whole directory.
            if self._directory_stands():
                self._forget(source)
            return
        except InvalidInput as invalid:
            entry, faults = None, invalid.problems
        self._forget(source)
        if entry is not None:
            source = entry.source  # one string serves everybody
            self._entries[source] = entry
        else:
            self._faults[source] = faults
        # The stamp was taken before the content: a change in between shows as another stamp.
        if stamp is not None and max(stamp[3], stamp[4]) / 1e9 < started - _RACY:
            self._stamps[source] = stamp

    def _forget(self, source: str) -> None:
        self._stamps.pop(source, None)
        self._entries.pop(source, None)
        self._faults.pop(source, None)
        self._unread.discard(source)

    def _answer(self) -> Scan[E]:
        problems = [problem for faults in self._faults.values() for problem in faults]
        problems += (_unread_problem(source, self._what) for source in self._unread)
        if self._directory_fault is not None:
            problems.append(self._directory_fault)
        return Scan(
            entries=MappingProxyType(self._entries),
            problems=tuple(sorted(problems)),
            unreadable=frozenset(self._faults),
            unread=tuple(sorted(self._unread)),
            complete=self._directory_fault is None,
        )


def _unread_problem(source: str, what: str) -> Problem:
    kept = f"is not read, and while it is here no {what} is removed because its file is gone"
    if source.endswith(".yml"):
        return Problem(
            source, "", "", kept, f"rename it to {Path(source).stem}{SUFFIX}, or move it elsewhere"
        )
    return Problem(source, "", "", kept, f"move it elsewhere, or name it NAME{SUFFIX} if it is a {what}'s")


def _stamp(path: Path) -> _Stamp | None:
    """What changes when the file does; None if it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
