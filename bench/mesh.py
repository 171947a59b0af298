"""`python -m bench.mesh`, inside `lab/run`: a whole mesh, beside the same charons with connections that
start themselves.

Theirs are the very connections of swanmesh, but as people write them by hand: `start_action = trap|start`,
`dpd_action = restart`, `close_action = start`, and `unique` left at its default. Nothing but charon acts on
them.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.results import Line, Results
from lab import by_hand
from lab.host import Host
from lab.mesh import Mesh, mesh
from lab.waiting import wait_until
from swanmesh.charon.rendering import render
from swanmesh.config.entry_files import peer_directory
from swanmesh.core.desired import desired
from swanmesh.service.sources import Sources

_LOOK = 0.5
"""Seconds between looks at all charons: each takes CPU from them."""
_SETTLE = 40.0
"""Seconds that duplicates have to go away; a dead peer is noticed by then, and what it left is gone."""
_SETS_UP = ("ike-init-out-", "ike-auth-out-", "create-child-out-")
"""Of charon's counters (plugins/vici/vici_query.c)."""


@dataclass
class Run:
    """What one way of running the mesh took. Seconds; infinite where it never came to that."""

    acting: float = 0.0
    """Until all that had to be started was."""
    joined: float = math.inf
    """Until every pair had an association."""
    single: float = math.inf
    """Until every pair had exactly one."""
    made: int = 0
    """IKE_SAs established up to then at all ends, where hosts x (hosts - 1) are right."""
    left: int = 0
    """IKE_SAs too many at all ends when all was quiet."""
    messages: int = 0
    """Messages of IKE_SA_INIT, IKE_AUTH and CREATE_CHILD_SA sent, without retransmissions."""
    back: float = math.inf
    """From the return of a crashed charon until all its pairs had an association again."""
    back_single: float = math.inf


def measure(hosts: int, timeout: float, quiet: float) -> Results:
    """Both ways, one after the other, in a fresh mesh each."""
    ours = _run(hosts, Controllers, timeout, quiet)
    theirs = _run(hosts, ByHand, timeout, quiet)
    pairs = hosts * (hosts - 1) // 2
    results = Results()
    results.add(
        f"{hosts} hosts, {pairs} pairs, all started at once (trap|start, dpd restart, close start)",
        Line(
            what="every controller answers, every connection is loaded",
            ours=ours.acting,
            theirs=theirs.acting,
            note="all processes on one CPU, ten times slower, in user-mode Linux"
            if os.environ.get("LAB") == "uml"
            else "",
        ),
        _seconds("every pair has an association", ours.joined, theirs.joined),
        _seconds("every pair has exactly one", ours.single, theirs.single),
        _count("IKE_SAs made on the way, of which are right", ours.made, theirs.made, hosts * (hosts - 1)),
        _count(f"IKE_SAs too many after {quiet:.0f} s of quiet", ours.left, theirs.left, 0),
        Line(
            what="messages to set up an association, per pair",
            ours=ours.messages / pairs,
            theirs=theirs.messages / pairs,
            unit="",
            note="4 are the least",
        ),
        _seconds("after the return of a crashed charon: all its pairs are back", ours.back, theirs.back),
        _seconds("... and every pair has exactly one", ours.back_single, theirs.back_single),
    )
    return results


def _seconds(what: str, ours: float, theirs: float) -> Line:
    known = math.isfinite(theirs)
    note = "" if known else f"theirs: not within {_SETTLE:.0f} s more"
    return Line(what=what, ours=ours, theirs=theirs if known else None, note=note)


def _count(what: str, ours: int, theirs: int, right: int) -> Line:
    return Line(what=what, ours=ours, theirs=theirs, unit="", note=f"{right} would be right")


class Way(Protocol):
    """A way of running a mesh whose charons run."""

    def __init__(self, lab: Mesh) -> None: ...

    def start(self) -> None:
        """On all hosts at once; returns when all is started."""

    def charon_is_back(self, host: Host) -> None: ...


class Controllers:
    """`swanmesh run` on every host."""

    def __init__(self, lab: Mesh) -> None:
        self._lab = lab

    def start(self) -> None:
        self._lab.start_controllers()

    def charon_is_back(self, host: Host) -> None:
        """They notice."""


class ByHand:
    """Each host's connections, loaded once, as strongSwan's systemd unit does after each start of charon."""

    def __init__(self, lab: Mesh) -> None:
        self._lab = lab
        self._connections = {host.short: dict(_by_hand(host)) for host in lab}

    def start(self) -> None:
        threads = [threading.Thread(target=self.charon_is_back, args=(host,)) for host in self._lab]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def charon_is_back(self, host: Host) -> None:
        by_hand.load_credentials(host)
        with host.vici() as session:
            for name, body in self._connections[host.short].items():
                session.load_conn({name: body})


def _by_hand(host: Host) -> Iterator[tuple[str, dict[str, Any]]]:
    """swanmesh's own connections with the actions that people give them."""
    settings = Sources(host.config).settings
    for peer in peer_directory(host.peers).scan().entries.values():
        for _, connection in desired(settings, peer).values():
            yield connection.name, _as_people_write(render(connection))


def _as_people_write(body: dict[str, Any]) -> dict[str, Any]:
    written = {key: value for key, value in body.items() if key not in ("unique", "children")}
    actions = {"start_action": "trap|start", "dpd_action": "restart", "close_action": "start"}
    children = {name: child | actions for name, child in body["children"].items()}
    return written | {"children": children}


def _run(hosts: int, kind: type[Way], timeout: float, quiet: float) -> Run:
    run = Run()
    with mesh(hosts, name="bench") as lab:
        way = kind(lab)
        lab.start_charons()
        began = time.monotonic()
        way.start()
        run.acting = time.monotonic() - began
        run.joined, run.single = _watch(lab, began, timeout)
        _pass(lab, quiet)
        run.left = sum(_extra(host, lab) for host in lab)
        run.made = sum(_established(host) for host in lab)
        run.messages = sum(_messages(host) for host in lab)
        crashed = lab[0]
        crashed.kill_charon()
        crashed.start_charon()
        began = time.monotonic()
        way.charon_is_back(crashed)
        run.back, run.back_single = _watch(lab, began, timeout, crashed)
    return run


def _watch(lab: Mesh, began: float, timeout: float, only: Host | None = None) -> tuple[float, float]:
    """Seconds from `began` until every pair (of `only`) has an association, and until all have exactly one.

    Raises TimeoutError if not every pair comes to have one; that each has no more may never come."""
    seen: dict[str, float] = {}

    def done() -> bool:
        now = time.monotonic() - began
        shown = {host.short: host.sas() for host in lab}
        if _joined(lab, shown, only):
            seen.setdefault("joined", now)
            if not any(_too_many(shown[host.short], lab) for host in lab):
                seen["single"] = now
            elif now > seen["joined"] + _SETTLE:
                seen["single"] = math.inf
        return "single" in seen

    wait_until(done, timeout + _SETTLE, "every pair has an association", interval=_LOOK)
    return seen["joined"], seen["single"]


def _joined(lab: Mesh, shown: dict[str, list[dict[str, Any]]], only: Host | None) -> bool:
    """Whether each pair has a CHILD_SA that both ends hold: the SPI that comes in here goes out there."""
    ends = {short: set(_children(sas)) for short, sas in shown.items()}
    for one, other in itertools.combinations(lab, 2):
        if only not in (None, one, other):
            continue
        there = ends[other.short]
        between = {end for end in ends[one.short] if (end[1], end[0]) in there}
        if not between:
            return False
    return True


def _children(sas: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for sa in sas:
        for child in sa["child-sas"].values():
            if child["state"] == "INSTALLED" and child["mode"] == "TRANSPORT":
                yield child["spi-in"], child["spi-out"]


def _extra(host: Host, lab: Mesh) -> int:
    return _too_many(host.sas(), lab)


def _too_many(sas: list[dict[str, Any]], lab: Mesh) -> int:
    """IKE_SAs beyond one for each other host."""
    return max(0, len(sas) - (len(lab) - 1))


def _established(host: Host) -> int:
    """How often charon's log tells that an IKE_SA was established."""
    return sum(" established between " in line for line in host.charon_log.read_text().splitlines())


def _messages(host: Host) -> int:
    """What charon counted as sent (`get-counters`)."""
    with host.vici() as session:
        counters = session.get_counters({})["counters"]
    return sum(
        int(value) for each in counters.values() for name, value in each.items() if name.startswith(_SETS_UP)
    )


def _pass(lab: Mesh, seconds: float) -> None:
    """Quiet is what is waited for: nothing changes in any charon for so long."""
    last: list[frozenset[str]] = []
    since = time.monotonic()

    def quiet() -> bool:
        nonlocal last, since
        now = [frozenset(sa["uniqueid"] for sa in host.sas()) for host in lab]
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since >= seconds

    wait_until(quiet, 600, "no association changes any more", interval=_LOOK)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.mesh")
    parser.add_argument("--hosts", type=int, default=12)
    parser.add_argument("--timeout", type=float, default=300, help="seconds for a mesh to come up")
    parser.add_argument("--quiet", type=float, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = measure(arguments.hosts, arguments.timeout, arguments.quiet)
    print(results.table())
    if arguments.json is not None:
        results.write_json(arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
