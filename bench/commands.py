"""Commands as whole processes, from start to exit."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.processes import SWANMESH, fake_charon, list_sas, load_conns, service, timed
from bench.results import Line, Results
from bench.site import Site, build


def measure(results: Results, folder: Path, counts: Sequence[int], rounds: int) -> None:
    """At each number of peers."""
    for count in counts:
        _measure(results, folder, count, rounds)


def _measure(results: Results, folder: Path, count: int, rounds: int) -> None:
    """With every peer up at a charon that only tells of it: swanctl's own part of the time is all it shows,
    a real charon takes longer to answer it."""
    site = build(folder / f"commands-{count}", count)
    section = f"whole commands at {count:,} peers, all up (swanctl)"
    with fake_charon(site) as process, service(site, process) as running:
        running.await_loads(count + 1)
        running.await_up()
        sas = list_sas(site)
        results.add(
            section,
            _line("status (--list-sas)", site, ("status",), sas, rounds),
            _line("status --json (--list-sas --raw)", site, ("status", "--json"), (*sas, "--raw"), rounds),
            _line("status of one (--list-sas --ike)", site, ("status", site.peers[0].name), sas, rounds),
            _add_peer(site, rounds),
        )


def _line(what: str, site: Site, ours: tuple[str, ...], theirs: tuple[str, ...], rounds: int) -> Line:
    mine, others = [], []
    for _ in range(rounds):
        mine.append(timed(_swanmesh(site, *ours)))
        others.append(timed(theirs))
    return Line(what=what, ours=statistics.median(mine), theirs=statistics.median(others))


def _add_peer(site: Site, rounds: int) -> Line:
    """swanctl's way is to load all again; here the charon answers at once, so this is the least it takes."""
    mine, others = [], []
    for peer in site.spare[:rounds]:
        words = ("add-peer", peer.name, *(str(address) for address in peer.addresses))
        mine.append(timed(_swanmesh(site, *words)))
        site.peers.append(peer)
    site.write_swanctl_conf()
    for _ in range(rounds):
        others.append(timed(load_conns(site)))
    return Line(
        what="add-peer (--load-conns)", ours=statistics.median(mine), theirs=statistics.median(others)
    )


def _swanmesh(site: Site, *words: str) -> tuple[str, ...]:
    return (*SWANMESH, "--config", str(site.config), *words)
