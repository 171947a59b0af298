"""Which files changed: the kernel's inotify on each folder, and a look now and then where that cannot see.

A folder that is removed, replaced or not there yet is found again by a look at its inode every second: that
also covers a folder above it being renamed, and a file system mounted over it. Where the kernel has no watch
left, the folder's listing is compared instead, and `degraded` says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

from asyncinotify import Event, Inotify, Mask

QUIET = 0.005
"""Seconds without a change after which a burst counts as over."""
LONGEST = 0.2
"""Seconds after which a burst is told even if it goes on."""
LOOK = 1.0
"""Seconds between two looks at what inotify does not tell."""

_MASK = (
    Mask.CLOSE_WRITE
    | Mask.MOVED_TO
    | Mask.MOVED_FROM
    | Mask.DELETE
    | Mask.CREATE
    | Mask.ATTRIB
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
    | Mask.ONLYDIR
)
_LOST = Mask.IGNORED | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT
_EXHAUSTED = (errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSYS)

_Listing = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What changed since the last time."""

    paths: frozenset[Path]
    """Files that were written, replaced, removed, or whose mode changed."""
    everything: bool
    """Changes were missed or a whole folder was exchanged: look at every file."""


class _Folder:
    """A watched folder, and which of its files matter."""

    __slots__ = ("identity", "listing", "names", "path", "polled", "wd", "whole")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.whole = False
        """Whether all of its files matter."""
        self.names: set[str] = set()
        self.identity: tuple[int, int] | None = None
        """Device and inode of what is being watched; None while it is not there."""
        self.wd: int | None = None
        self.polled = False
        self.listing: _Listing = {}

    def matters(self, name: str) -> bool:
        return name in self.names or (self.whole and not name.startswith("."))

    def look(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None

    def list(self) -> _Listing:
        listing: _Listing = {}
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                if self.matters(entry.name):
                    listing[entry.name] = _look_at(entry)
        return listing


class Watch:
    """Watches whole folders and single files elsewhere; needs a running event loop from `open` on.

    Open it before reading the files for the first time: then no change falls between.
    """

    def __init__(self, folders: Iterable[Path], files: Iterable[Path] = ()) -> None:
        self.degraded = ""
        """Why folders are polled instead of watched, in words; empty while none is."""
        self._folders: dict[Path, _Folder] = {}
        for folder in folders:
            self._folder(folder).whole = True
        for path in files:
            self._folder(path.parent).names.add(path.name)
        self._inotify: Inotify | None = None
        self._paths: set[Path] = set()
        self._everything = False
        self._wake = asyncio.Event()
        self._next_look = 0.0

    def _folder(self, path: Path) -> _Folder:
        return self._folders.setdefault(path, _Folder(path))

    def open(self) -> None:
        """Begin to watch."""
        try:
            # No waiting in `sync_get`: it is called when the loop has seen something to read.
            self._inotify = Inotify(cache_size=100, sync_timeout=0)
        except OSError as error:
            self._degrade(error)
        else:
            asyncio.get_running_loop().add_reader(self._inotify.fd, self._drain)
        self._attach()
        self._everything = False
        self._wake.clear()
        self._next_look = asyncio.get_running_loop().time() + LOOK

    def close(self) -> None:
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    async def changes(self) -> AsyncIterator[Changes]:
        """Each burst of changes, once it is over or has lasted for 0.2 s. Never ends by itself."""
        while True:
            await self._burst()
            if self._paths or self._everything:
                changes = Changes(paths=frozenset(self._paths), everything=self._everything)
                self._paths.clear()
                self._everything = False
                yield changes

    async def _burst(self) -> None:
        """Wait for a change and the end of its burst, or for the next look."""
        loop = asyncio.get_running_loop()
        woken = await self._woken(max(0.0, self._next_look - loop.time()))
        if loop.time() >= self._next_look:
            self._look()
            self._next_look = loop.time() + LOOK
        if not woken:
            return
        end = loop.time() + LONGEST
        while (left := end - loop.time()) > 0:
            self._wake.clear()
            if not await self._woken(min(QUIET, left)):
                break
        self._wake.clear()

    async def _woken(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def _look(self) -> None:
        self._attach()
        for folder in self._folders.values():
            if folder.polled:
                listing = folder.list()
                for name in listing.keys() | folder.listing.keys():
                    if listing.get(name) != folder.listing.get(name):
                        self._changed(folder.path / name)
                folder.listing = listing

    def _attach(self) -> None:
        """Watch each folder that stands where none stood, or another one."""
        for folder in self._folders.values():
            # Taken before the watch: a folder exchanged in between differs at the next look.
            identity = folder.look()
            if identity == folder.identity:
                continue
            self._all_changed()
            self._detach(folder)
            if identity is not None:
                self._attach_one(folder)
            folder.identity = identity

    def _attach_one(self, folder: _Folder) -> None:
        try:
            if self._inotify is not None:
                folder.wd = self._inotify.add_watch(folder.path, _MASK).wd
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._degrade(error)
        # Without a watch, for whatever reason, its files are looked at.
        folder.polled = folder.wd is None
        folder.listing = folder.list() if folder.polled else {}

    def _detach(self, folder: _Folder) -> None:
        wd, folder.wd, folder.polled = folder.wd, None, False
        # Two paths to one folder share a watch.
        if wd is None or self._inotify is None or any(one.wd == wd for one in self._folders.values()):
            return
        for watch in self._inotify.watches:
            if watch.wd == wd:
                with contextlib.suppress(OSError):
                    self._inotify.rm_watch(watch)

    def _degrade(self, error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        self.degraded = (
            f"files are looked at every {LOOK:g} s: inotify: {reason}; raise fs.inotify.max_user_*"
        )

    def _drain(self) -> None:
        assert self._inotify is not None  # noqa: S101 - the reader goes with it
        while (event := self._inotify.sync_get()) is not None:
            self._take(event)

    def _take(self, event: Event) -> None:
        if event.mask & Mask.Q_OVERFLOW:
            self._all_changed()
            return
        wd = event.watch.wd if event.watch is not None else None
        folders = [folder for folder in self._folders.values() if wd is not None and folder.wd == wd]
        if event.mask & _LOST and folders:
            for folder in folders:
                folder.identity = None
                # The kernel dropped the watch itself with IGNORED; a moved folder still has it.
                if event.mask & Mask.IGNORED:
                    folder.wd = None
            self._all_changed()
            self._attach()
            return
        for folder in folders:
            if event.name is not None:
                self._take_file(folder, event.name.name, event.mask)
            elif event.mask & Mask.ATTRIB:
                # The folder's own mode or owner, by which its files are trusted.
                self._all_changed()

    def _take_file(self, folder: _Folder, name: str, mask: Mask) -> None:
        if name.startswith("..") and mask & (Mask.CREATE | Mask.MOVED_TO):
            # Volumes of Kubernetes exchange all files by renaming the link `..data` that they lead through.
            self._all_changed()
            return
        path = folder.path / name
        if not folder.matters(name) or (mask & Mask.CREATE and _is_being_written(path)):
            return
        self._changed(path)

    def _changed(self, path: Path) -> None:
        self._paths.add(path)
        self._wake.set()

    def _all_changed(self) -> None:
        self._everything = True
        self._wake.set()


def _is_being_written(path: Path) -> bool:
    """Whether a file just created is still empty, so that its closing follows; a link's does not."""
    try:
        status = path.lstat()
    except OSError:
        return True
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def _look_at(entry: os.DirEntry[str]) -> tuple[int, ...]:
    for follow in (True, False):  # a link to nowhere is looked at itself
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=follow)
            return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ()
