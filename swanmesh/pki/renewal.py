"""Another certificate for this host from a program: a request goes in, certificates come out.

Each renewal has a new key, which waits beside the one in use as in `enrolment`, whose order of replacing
leaves a pair that works wherever it is cut off. What failed is tried again with the key that waits already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography import x509

from swanmesh.core.model import InvalidInput
from swanmesh.files.errors import words
from swanmesh.files.trust import distrust
from swanmesh.files.write import NotWritten
from swanmesh.pki.enrolment import Place, install, request
from swanmesh.programs.process import Run, run_program


class NotRenewed(Exception):
    """Nothing was changed, and why, in words."""


async def renew(
    place: Place,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    time_limit: float,
    clock: Callable[[], float],
    outlives: bool = True,
) -> x509.Certificate:
    """Have `command` answer a request, and put what it answers in place. `clock` tells the seconds since the
    epoch. Returns the new certificate.

    The answer is judged as `enroll install` judges. With `outlives` it must end later than the certificate in
    use: a program that answers with an old one is not asked without end. Raises NotRenewed; cancelled, it
    ends the command with all that this started.
    """
    if fault := program_fault(command):
        raise NotRenewed(f"{command[0]} {fault}")
    try:
        asked = await asyncio.to_thread(request, place, None, now=clock())
        answer = await _answer(command, asked, environment, time_limit)
        return await asyncio.to_thread(install, place, answer, command[0], now=clock(), outlives=outlives)
    except (InvalidInput, NotWritten, OSError) as error:
        raise NotRenewed("; ".join(str(error).splitlines())) from None


def program_fault(command: Sequence[str]) -> str:
    """Why the program is not run, or cannot be; empty if it can."""
    try:
        fault = distrust(Path(command[0]))
    except OSError as error:
        return f"cannot be run: {words(error)}; put it there, or correct renewal.command"
    return f"is not run: {fault}" if fault else ""


async def _answer(
    command: Sequence[str], asked: bytes, environment: Mapping[str, str], time_limit: float
) -> bytes:
    runs: list[Run] = []
    await run_program(command, asked, runs.append, environment=environment, timeout=time_limit, answers=True)
    (run,) = runs
    if run.error:
        raise NotRenewed(": ".join([command[0], run.error, *run.output[-1:]]))
    return run.answer
