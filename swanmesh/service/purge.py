"""Taking back all that swanmesh gave charon and told of paths, with the service stopped: `swanmesh purge`."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from swanmesh.charon.client import Charon
from swanmesh.charon.errors import CharonLost, CommandFailed
from swanmesh.core.connections import ours, ours_loaded
from swanmesh.core.observed import IkeSa
from swanmesh.kernel import routes

_PATIENCE = 5.0
"""Seconds that peers have to answer a DELETE; what then still stands is ended without their word."""
_INTERVAL = 0.1


@dataclass(frozen=True, slots=True)
class Purged:
    """What was ours, and is gone."""

    connections: tuple[str, ...]
    ike_sas: int


class NotPurged(Exception):
    """charon is gone or refused, in its words. What was done is done; once more goes on from there."""


def purge(socket: Path, timeout: float, *, patience: float = _PATIENCE) -> Purged:
    """Unload our connections with their traps, then end our IKE_SAs with their CHILD_SAs.

    In this order: a trap would bring up again what is ended before it. Credentials stay, since charon can
    only forget all of them together, others' included. Raises NotPurged.
    """
    try:
        purged = asyncio.run(_purge(Charon(socket, timeout=timeout), patience))
    except (CharonLost, CommandFailed) as error:
        raise NotPurged(str(error)) from error
    with contextlib.suppress(OSError):  # where there is no network to speak of
        routes.clear()
    return purged


async def _purge(charon: Charon, patience: float) -> Purged:
    await charon.connect()
    try:
        held = await charon.observe_connections()
        connections = tuple(sorted(each.name for each in held if ours_loaded(each)))
        for name in connections:
            await charon.unload_connection(name)
        standing = await _ours(charon)
        for sa in standing:
            await _end(charon, sa, force=False)
        await _gone(charon, patience)
        for sa in await _ours(charon):
            await _end(charon, sa, force=True)
        return Purged(connections, len(standing))
    finally:
        await charon.close()


async def _ours(charon: Charon) -> list[IkeSa]:
    return [sa for sa in await charon.observe_sas() if ours(sa.connection)]


async def _end(charon: Charon, sa: IkeSa, *, force: bool) -> None:
    try:
        await charon.terminate_ike(sa.unique_id, force=force)
    except CommandFailed:
        if any(other.unique_id == sa.unique_id for other in await _ours(charon)):
            raise


async def _gone(charon: Charon, patience: float) -> None:
    """Until none of ours is left, or `patience` is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while loop.time() < deadline and await _ours(charon):  # noqa: ASYNC110 - only a look tells of all of them
        await asyncio.sleep(_INTERVAL)
