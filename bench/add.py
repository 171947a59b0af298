"""One peer more among thousands: requests to charon, and seconds until it is loaded."""

from __future__ import annotations

import queue
import statistics
import subprocess
import time
from pathlib import Path

from swanmesh.control.protocol import EventRecord
from swanmesh.core.model import Peer

from .processes import Service, charon, load_conns, service, timed
from .results import Line, Results
from .site import Site, build

_Told = queue.SimpleQueue[tuple[float, EventRecord]]
_MOST_REQUESTS = 5
_TIMES_FASTER = 100


def measure(results: Results, folder: Path, count: int, rounds: int) -> None:
    """Peers that are all the other side's to initiate, so that each request is the new peer's."""
    site = build(folder / "add", count, passive=True)
    section = f"one peer added to {count:,} (swanctl --load-conns of {count + 1:,})"
    with charon(site), service(site) as running:
        running.await_loads(count + 1)
        added = [_add(site, running, peer) for peer in site.spare[: max(5, rounds)]]
    theirs = statistics.median(_theirs(site) for _ in range(rounds))
    most = max(requests for requests, _, _ in added)
    loaded = statistics.median(seconds for _, seconds, _ in added)
    initiated = statistics.median(seconds for _, _, seconds in added)
    note = f"median of {len(added)}"
    results.add(
        section,
        Line(
            what="VICI requests until it is loaded and initiated",
            ours=most,
            unit="requests",
            goal=f"at most {_MOST_REQUESTS}",
            met=most <= _MOST_REQUESTS,
            note=f"most of {len(added)}",
        ),
        Line(
            what="from its file in place to loaded",
            ours=loaded,
            theirs=theirs,
            goal=f"at least {_TIMES_FASTER} times faster",
            met=theirs >= _TIMES_FASTER * loaded,
            note=note,
        ),
        Line(
            what="from its file in place to initiated", ours=initiated, note=f"{note}; up to 0.5 s of jitter"
        ),
    )


def _add(site: Site, running: Service, peer: Peer) -> tuple[int, float, float]:
    """Requests, and seconds to `load` and to `initiate`."""
    before = running.requests()
    with running.events() as told:
        began = time.monotonic()
        site.put(peer)
        loaded = _await(told, "load", peer)
        initiated = _await(told, "initiate", peer)
    return running.requests() - before, loaded - began, initiated - began


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
