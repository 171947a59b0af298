"""Cold load: thousands of peers into a charon that holds nothing."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench.processes import charon, held, load_conns, service, timed
from bench.results import Line, Results, verdict
from bench.site import Site, build, name_in_file
from swanmesh.charon.client import Charon


def measure(results: Results, folder: Path, count: int, rounds: int) -> None:
    """Fresh charons by turns; medians."""
    site = build(folder / "load", count)
    took: dict[Callable[[Site], float], list[float]] = {_ours: [], _theirs: [], _vici_alone: []}
    for number in range(rounds):
        for way in sorted(took, key=lambda way: way is _theirs, reverse=number % 2 == 1):
            took[way].append(way(site))
    whole, theirs, alone = (statistics.median(took[way]) for way in (_ours, _theirs, _vici_alone))
    results.add(
        f"cold load of {count:,} peers (swanctl --load-conns)",
        Line(
            what="from the start of the process to all loaded",
            ours=whole,
            theirs=theirs,
            goal="no slower",
            met=verdict(count, whole <= theirs),
            note=f"median of {rounds} fresh charons each",
        ),
        Line(
            what="the part that is VICI",
            ours=alone,
            theirs=theirs,
        ),
    )


def _ours(site: Site) -> float:
    with charon(site) as process:
        began = time.monotonic()
        with service(site, process) as running:
            running.await_loads(len(site.peers) + 1)
            took = time.monotonic() - began
        _check(site)
        return took


def _theirs(site: Site) -> float:
    with charon(site):
        took = timed(load_conns(site))
        _check(site)
        return took


def _vici_alone(site: Site) -> float:
    connections = site.connections()

    async def load() -> float:
        client = Charon(site.charon_socket, timeout=60)
        await client.connect()
        began = time.monotonic()
        outcome = await client.load_connections(connections)
        took = time.monotonic() - began
        await client.close()
        refused = [error for error in outcome.values() if error is not None]
        if refused:
            raise RuntimeError(f"charon refused {len(refused)} connections: {refused[0]}")
        return took

    with charon(site):
        took = asyncio.run(load())
        _check(site)
        return took


def _check(site: Site) -> None:
    """Both ways must have loaded the same, or the comparison means nothing."""
    wanted = {name_in_file(connection.name): (connection.child,) for connection in site.connections()}
    found = {name_in_file(name): children for name, children in held(site.charon_socket).items()}
    if found != wanted:
        lacking = len(wanted.keys() - found.keys())
        raise RuntimeError(f"charon does not hold what was to be loaded: {lacking} are missing")
