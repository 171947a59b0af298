"""One peer more among thousands: requests to charon, and seconds until it is loaded."""

from __future__ import annotations

import queue
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.processes import Service, charon, load_conns, service, timed
from bench.results import Line, Results, verdict
from bench.site import Site, build
from swanmesh.core.events import MeshEvent
from swanmesh.core.model import Peer

_Told = queue.SimpleQueue[tuple[float, MeshEvent]]
_TIMES = 7
_MOST_REQUESTS = 5
_TIMES_FASTER = 100


def measure(results: Results, folder: Path, count: int, rounds: int) -> None:
    """Peers that are all the other side's to initiate, so that each request is the new peer's."""
    site = build(folder / "add", count, passive=True)
    section = f"one peer added to {count:,} (swanctl --load-conns of {count + 1:,})"
    with charon(site) as process, service(site, process) as running:
        running.await_loads(count + 1)
        spare = iter(site.spare)
        seen = [_add(site, running, next(spare)) for _ in range(_TIMES)]
        told = [_add(site, running, next(spare), tell=True) for _ in range(_TIMES)]
    theirs = statistics.median(_theirs(site) for _ in range(rounds))
    requests = statistics.median(each.requests for each in (*seen, *told))
    loaded = statistics.median(each.loaded for each in seen)
    note = f"median of {_TIMES}"
    results.add(
        section,
        Line(
            what="VICI requests until it is loaded and initiated",
            ours=requests,
            unit="",
            goal=f"at most {_MOST_REQUESTS}",
            met=verdict(count, requests <= _MOST_REQUESTS),
            note=f"median of {2 * _TIMES}",
        ),
        Line(
            what="from its file in place to loaded",
            ours=loaded,
            theirs=theirs,
            goal=f"at least {_TIMES_FASTER} times faster",
            met=verdict(count, theirs >= _TIMES_FASTER * loaded),
            note=note,
        ),
        Line(
            what="from the request to reload to loaded, as add-peer has it",
            ours=statistics.median(each.loaded for each in told),
            theirs=theirs,
            note=note,
        ),
        Line(
            what="from its file in place to initiated",
            ours=statistics.median(each.initiated for each in seen),
            note=f"{note}; up to 0.5 s of jitter",
        ),
    )


@dataclass(frozen=True)
class _Added:
    requests: int
    loaded: float
    initiated: float


def _add(site: Site, running: Service, peer: Peer, *, tell: bool = False) -> _Added:
    """Put the peer's file in place; the service sees it, or is told at once."""
    before = running.requests()
    with running.events() as told:
        began = time.monotonic()
        path = site.put(peer)
        if tell:
            running.client.reload([path])
        loaded = _await(told, "load", peer)
        initiated = _await(told, "initiate", peer)
    return _Added(running.requests() - before, loaded - began, initiated - began)


def _await(told: _Told, action: str, peer: Peer) -> float:
    """When charon had done it."""
    while True:
        moment, record = told.get(timeout=30)
        if record.peer == peer.name and record.details.get("action") == action:
            return moment


def _theirs(site: Site) -> float:
    """swanctl with all of them loaded already but one, which it finds by loading all."""
    site.write_swanctl_conf()
    one_less = site.folder / "one-less.conf"
    *_, last = site.peers
    with charon(site):
        site.peers.remove(last)
        site.write_swanctl_conf()
        site.swanctl_conf.rename(one_less)
        site.peers.append(last)
        site.write_swanctl_conf()
        subprocess.run(load_conns(site, one_less), check=True, capture_output=True)
        return timed(load_conns(site))
