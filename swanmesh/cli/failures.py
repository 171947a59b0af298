"""How a command ends: exit statuses, and each error as one clear line on stderr."""

from __future__ import annotations

import enum
import os
import sys
import traceback
from collections.abc import Sequence

from swanmesh.cli.output import safe


class ExitStatus(enum.IntEnum):
    """What scripts can rely on."""

    DONE = 0
    FAILED = 1
    INVALID = 2
    """Wrong usage, or input that nothing was done with."""
    UNREACHABLE = 3
    """The service is not reachable."""
    TIMED_OUT = 4


class Failure(Exception):
    """Ends the command with this status, after these lines on stderr."""

    def __init__(self, status: ExitStatus, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.status = status
        self.lines = lines


def complain(*lines: str) -> None:
    """Each line on stderr, printable."""
    for line in lines:
        print(f"swanmesh: {safe(line)}", file=sys.stderr)


def report(error: Exception) -> ExitStatus:
    """Say what went wrong; the exit status for it."""
    if os.environ.get("SWANMESH_DEBUG"):
        traceback.print_exception(error)
    lines, status = _explain(error)
    complain(*lines)
    return status


def _explain(error: Exception) -> tuple[Sequence[str], ExitStatus]:
    # Imported here: a command that goes well needs none of them for this.
    from swanmesh.control.client import RequestRefused, ServiceTimeout, ServiceUnreachable
    from swanmesh.control.listener import SocketUnusable
    from swanmesh.core.model import InvalidInput
    from swanmesh.core.peers.description import NoSuchPeer
    from swanmesh.files.write import NotWritten

    lines: Sequence[str] = [str(error)]
    match error:
        case Failure():
            return error.lines, error.status
        case InvalidInput():
            lines, status = [str(problem) for problem in error.problems], ExitStatus.INVALID
        case NoSuchPeer() | RequestRefused(invalid=True):
            status = ExitStatus.INVALID
        case ServiceUnreachable():
            status = ExitStatus.UNREACHABLE
        case ServiceTimeout():
            status = ExitStatus.TIMED_OUT
        case RequestRefused() | NotWritten() | SocketUnusable() | OSError():
            status = ExitStatus.FAILED
        case _:
            hint = "this is a bug in swanmesh; SWANMESH_DEBUG=1 shows where"
            lines, status = [f"{type(error).__name__}: {error}; {hint}"], ExitStatus.FAILED
    return lines, status
