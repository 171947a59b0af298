"""Asking a person, at the terminal itself: standard input may be a request or a certificate."""

from __future__ import annotations

import os

from swanmesh.cli.failures import ExitStatus, Failure
from swanmesh.cli.output import safe

_TERMINAL = "/dev/tty"


def agreed(question: str) -> bool:
    """Whether the person says yes. Raises Failure where there is no terminal."""
    fd = _open("say --yes if nobody needs to be asked")
    with os.fdopen(fd, "rb", buffering=0) as terminal:
        os.write(fd, f"{safe(question)} [y/N] ".encode())
        return terminal.readline().strip().lower() in (b"y", b"yes")


def passphrase(what: str, *, twice: bool = False) -> bytes:
    """A passphrase, without echo. Raises Failure where there is no terminal, or it is empty or mistyped."""
    import getpass

    os.close(_open("give --passphrase-file"))
    given = getpass.getpass(f"Passphrase of {safe(what)}: ")
    if not given or (twice and getpass.getpass("The same again: ") != given):
        raise Failure(ExitStatus.INVALID, "the passphrase is empty" if not given else "the two differ")
    return given.encode()


def _open(remedy: str) -> int:
    try:
        return os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise Failure(ExitStatus.INVALID, f"there is no terminal to ask at; {remedy}") from None
