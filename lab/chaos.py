"""`make chaos`: random faults under a seed, while what must never happen is watched for.

Run as `lab/run python -m lab.chaos [SEED [HOSTS [MINUTES]]]`. The last line counts faults, pairs
and violations; the exit status is 0 only if every invariant held:

- While it runs, the associations of two hosts stay the same as long as neither of them, nor its cable, has a
  fault or still recovers from one.
- Every controller and charon lives until a fault ends it, and no controller meets a fault of its own.
- After the last fault the mesh is full again within RECOVERY seconds: exactly one association a pair, the
  same at both ends, nothing planned; and so it stays.

The seed decides which faults come when and where. What follows from them depends on the machine as well.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lab.asking import Spis, end_faults, lacking, pair_spis, plan, unanswered
from lab.host import Host
from lab.mesh import Mesh, host_faults, mesh
from lab.mischief import FAULTS, Fault
from swanmesh.control.client import ServiceTimeout, ServiceUnreachable

RECOVERY = 150.0
"""Seconds from the end of a fault until its host is as if nothing had been: the longest backoff (60 s), a
dead attempt (10 s), a takeover (25 s), what it takes to find an association that only one end still has
(15 s), and a duplicate's end (30 s)."""
QUIET = 20.0
"""Seconds that the mesh is watched after all is well: longer than a duplicate may stand."""
_LASTS = 2.0, 25.0
"""Seconds that a fault lasts."""
_PAUSE = 0.5
_SETTINGS: dict[str, Any] = {"connection": {"child_rekey": "24h", "ike_rekey": "24h"}}
"""A rekey on schedule changes SPIs and is no fault."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fault to come."""

    at: float
    host: int
    fault: Fault
    lasts: float


def schedule(seed: int, hosts: int, duration: float, faults: tuple[Fault, ...] = FAULTS) -> list[Event]:
    """Faults for `duration` seconds: at most one at a time on a host, and on a third of the hosts.

    Every kind comes as often as every other, give or take one.
    """
    rng = random.Random(seed)
    events: list[Event] = []
    busy: dict[int, float] = {}
    bag: list[Fault] = []
    at = 1.0
    while at < duration:
        busy = {host: until for host, until in busy.items() if until > at}
        free = [host for host in range(hosts) if host not in busy]
        if len(busy) < (hosts + 1) // 3 and free:
            bag = bag or rng.sample(faults, len(faults))
            fault = bag.pop()
            lasts = rng.uniform(*_LASTS) if fault.end else 0.0
            event = Event(at=at, host=rng.choice(free), fault=fault, lasts=lasts)
            busy[event.host] = at + lasts + 5
            events.append(event)
        at += rng.uniform(0.5, 5.0)
    return events


@dataclass
class Chaos:
    """One run. `violations` holds in words what should not have been."""

    lab: Mesh
    seed: int
    violations: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _rng: random.Random = field(init=False)
    _active: dict[Host, tuple[Fault, float]] = field(default_factory=dict)
    """Hosts with a fault, and when it is to end."""
    _recovering: dict[Host, float] = field(default_factory=dict)
    """Hosts whose last fault ended then."""
    _known: dict[tuple[Host, Host], tuple[Spis, Spis]] = field(default_factory=dict)
    """SPIs of the pairs that no fault concerns, at both ends."""
    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def run(self, events: list[Event]) -> None:
        """All faults, and what comes after them. Needs a full mesh."""
        self._began = time.monotonic()
        self._watch()
        for event in events:
            while self._elapsed < event.at or self.lab[event.host] in self._active:
                self._turn()
            self._begin(event)
        while self._active:
            self._turn()
        self._say("the last fault is over")
        while self._recovering and self._elapsed < max(self._recovering.values()) + RECOVERY:
            self._turn()
        for host in self._recovering:
            self._violated(f"{host.short} is not well {RECOVERY:g} s after its last fault: {self._ill(host)}")
        self._say("all is well; watching on")
        quiet = self._elapsed + QUIET
        while self._elapsed < quiet:
            self._turn()
        self._final()

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _turn(self) -> None:
        for host, (fault, until) in list(self._active.items()):
            if self._elapsed >= until:
                self._end(host, fault)
        self._watch()
        time.sleep(_PAUSE)

    def _begin(self, event: Event) -> None:
        host = self.lab[event.host]
        self._say(
            f"{host.short}: {event.fault.name}" + (f" for {event.lasts:.0f} s" if event.fault.end else "")
        )
        self._watch()
        self.counts[event.fault.name] += 1
        self._recovering.pop(host, None)
        self._known = {pair: spis for pair, spis in self._known.items() if host not in pair}
        event.fault.begin(host, self._rng)
        if event.fault.end is None:
            self._recovering[host] = self._elapsed
        else:
            self._active[host] = event.fault, self._elapsed + event.lasts

    def _end(self, host: Host, fault: Fault) -> None:
        assert fault.end is not None
        fault.end(host, self._rng)
        del self._active[host]
        self._recovering[host] = self._elapsed
        self._say(f"{host.short}: no longer {fault.name}")

    # Watching.

    def _watch(self) -> None:
        """Compares what no fault concerns, and takes in what has recovered."""
        for host in list(self._recovering):
            if not self._ill(host):
                took = self._elapsed - self._recovering.pop(host)
                self.slowest = max(self.slowest, took)
                self._say(f"{host.short}: well again after {took:.0f} s")
        for one, other in itertools.combinations(self._well(), 2):
            held = pair_spis(one, other), pair_spis(other, one)
            before = self._known.setdefault((one, other), held)
            if held != before:
                self._violated(
                    f"{one.short}-{other.short} changed, and neither had a fault: {before} → {held}"
                )
                self._known[one, other] = held

    def _well(self) -> list[Host]:
        return [host for host in self.lab if host not in self._active and host not in self._recovering]

    def _ill(self, host: Host) -> str:
        """What still ails a host that has no fault any more; its pairs with hosts that have do not count."""
        others = [other for other in self.lab if other is not host and other not in self._active]
        try:
            return next(self._ailments(host, others), "")
        except (OSError, ServiceUnreachable, ServiceTimeout) as error:
            return f"something does not answer: {error}"

    def _ailments(self, host: Host, others: list[Host]) -> Iterator[str]:
        yield from host_faults(host, others)
        for other in others:
            yield from host_faults(other, [host])
            yield from end_faults(host, other)
            yield from end_faults(other, host)
            yield from unanswered(host, other)
            yield from unanswered(other, host)
        yield from lacking(host, others)
        # Slower to ask for, so only then.
        yield from (f"plans to {line}" for line in plan(host) if any(other.name in line for other in others))

    def _final(self) -> None:
        for host in self.lab:
            if not host.alive:
                self._violated(f"{host.short}: its charon or its controller has ended")
                return
        for host in self.lab:
            for ailment in self._ailments(host, [other for other in self.lab if other is not host]):
                self._violated(f"{host.short} at the end: {ailment}")
            text = host.swanmesh_log.read_text(errors="replace")
            if "Traceback" in text or "a fault of swanmesh" in text:
                self._violated(f"{host.short}: its controller met a fault of its own")
        for one, other in itertools.combinations(self.lab, 2):
            if one.ping(other).received == 0:
                self._violated(f"{one.short} gets no answer from {other.short}")

    def _violated(self, what: str) -> None:
        self.violations.append(what)
        self._say(f"VIOLATION: {what}")

    def _say(self, what: str) -> None:
        print(f"[{self._elapsed:6.1f} s] {what}", flush=True)


def chaos(seed: int, hosts: int, minutes: float, faults: tuple[Fault, ...] = FAULTS) -> Chaos:
    """Makes a mesh, troubles it, and returns what was seen."""
    with mesh(hosts, name=f"chaos-{seed}", **_SETTINGS) as lab:
        lab.start()
        lab.wait_until_full(60 + 2 * hosts)
        _traffic(list(lab))
        run = Chaos(lab, seed)
        events = schedule(seed, hosts, minutes * 60, faults)
        print(f"{hosts} hosts in full mesh; {len(events)} faults to come", flush=True)
        run.run(events)
        if run.violations:
            raise Violated(run)
        return run


def _traffic(hosts: list[Host]) -> None:
    """Half the pairs talk, for traffic is what springs traps and keeps dead peers looking alive."""
    for one, other in itertools.combinations(range(len(hosts)), 2):
        if (one + other) % 2:
            hosts[one].ping_stream(hosts[other].addresses[0], interval=0.5)


class Violated(AssertionError):
    """An invariant did not hold."""

    def __init__(self, run: Chaos) -> None:
        super().__init__("\n".join(run.violations))
        self.run = run


def last_line(run: Chaos) -> str:
    """What it came to, in one line."""
    hosts = len(run.lab)
    return (
        f"seed {run.seed}: {sum(run.counts.values())} faults, {hosts * (hosts - 1) // 2} pairs, "
        f"{len(run.violations)} violations"
    )


def main() -> int:
    """The command."""
    defaults = ["1", "8", "5"]
    words = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    try:
        seed, hosts, minutes = int(words[0]), int(words[1]), float(words[2])
        usable = len(words) == 3 and 3 <= hosts <= 100 and 0 < minutes <= 600
    except ValueError:
        usable = False
    if not usable:
        sys.stderr.write("say SEED=NUMBER, HOSTS= from 3 to 100, MINUTES= up to 600\n")
        return 2
    if not os.environ.get("LAB"):
        sys.stderr.write("run it as: lab/run python -m lab.chaos [SEED [HOSTS [MINUTES]]]\n")
        return 2
    try:
        run, status = chaos(seed, hosts, minutes), 0
    except Violated as violated:
        run, status = violated.run, 1
        print("\n".join([*run.violations, *getattr(violated, "__notes__", [])]))
    print(
        f"slowest recovery {run.slowest:.0f} s; " + ", ".join(f"{n} {name}" for name, n in run.counts.items())
    )
    print(last_line(run))
    return status


if __name__ == "__main__":
    sys.exit(main())
