"""One writer at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from swanmesh.core.model import InvalidInput
from swanmesh.files.read import check_folder
from swanmesh.files.write import TEMPORARY, NotWritten, not_written

TIMEOUT = 10.0
"""Seconds that one writer waits for another."""


def open_locked(directory: Path) -> int:
    """The folder's descriptor under an exclusive lock, held until it is closed.

    The lock is on the directory itself (flock), so that it needs no file and dies with its holder. It keeps
    out other writers, not readers. Unfinished files of a writer that was killed are removed. Raises
    NotWritten if it is not free within ten seconds, and InvalidInput if others could write there.
    """
    try:
        if (problem := check_folder(directory)) is not None:
            raise InvalidInput(problem)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise not_written(directory, error) from None
    try:
        _lock(fd, directory)
        _sweep(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """`open_locked` for as long as a block runs."""
    fd = open_locked(directory)
    try:
        yield
    finally:
        os.close(fd)


def _lock(fd: int, directory: Path) -> None:
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                remedy = "wait for it, then try again"
                raise NotWritten(directory, "another command is writing there", remedy) from None
        except OSError as error:
            raise not_written(directory, error) from None
        # flock waits without a limit or not at all.
        time.sleep(0.01)


def _sweep(fd: int) -> None:
    """Remove what a writer that was killed left behind: under the lock, nobody else is writing."""
    with os.scandir(fd) as entries:
        left = [entry.name for entry in entries if entry.name.startswith(TEMPORARY)]
    for name in left:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=fd)
