"""`make cold-start`: all hosts of a mesh start at once, and each pair ends with exactly one association.

Run as `lab/run python -m lab.cold_start [HOSTS]` (40). The last line is what was counted; the
exit status is 0 only if every pair has exactly one association, the same at both ends, and keeps it while the
mesh is quiet.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass

from lab.asking import Journal, pair_spis, wait_until_idle
from lab.mesh import Mesh, mesh

QUIET = 30.0
"""Seconds that nothing may change: what makes and ends duplicates takes no longer (`duplicate_settle` and
`takeover`)."""


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """What a start came to."""

    hosts: int
    seconds: float
    """From the first controller's start until each pair had exactly one association."""
    initiations: int
    ended: int
    """Duplicates that came up on the way and were ended."""
    downs: int
    faults: tuple[str, ...]
    """What was not as it should be when all was quiet."""

    @property
    def pairs(self) -> int:
        return self.hosts * (self.hosts - 1) // 2


def cold_start(lab: Mesh, timeout: float) -> ColdStart:
    """Starts every controller of a mesh whose charons run, and watches. Raises TimeoutError if it never gets
    full and quiet."""
    journals = [Journal(host) for host in lab]
    began = time.monotonic()
    for host in lab:
        host.launch_swanmesh()
    for host in lab:
        host.await_swanmesh(timeout)
    lab.wait_until_full(timeout)
    took = time.monotonic() - began
    wait_until_idle(lab.hosts, timeout)
    faults = tuple(_quiet_faults(lab))
    counts = Counter(line["event"] for journal in journals for line in journal.lines())
    return ColdStart(
        hosts=len(lab),
        seconds=took,
        initiations=counts["initiate"],
        ended=counts["terminate"] + counts["terminate-child"],
        downs=counts["peer-down"],
        faults=faults,
    )


def _quiet_faults(lab: Mesh) -> list[str]:
    before = lab.spis()
    # Not a wait for something to happen: that nothing happens for so long is what is claimed.
    time.sleep(QUIET)
    faults = list(lab.faults())
    faults += [
        f"{name}'s SPIs changed while all was quiet"
        for name, spis in lab.spis().items()
        if spis != before[name]
    ]
    for one, other in itertools.combinations(lab, 2):
        held = pair_spis(one, other)
        if held != pair_spis(other, one) or len(held) != 2:
            faults.append(
                f"{one.short} and {other.short} do not hold the same one association: {sorted(held)}"
            )
    return faults


def last_line(done: ColdStart) -> str:
    """What was counted, in one line."""
    return (
        f"{done.hosts} hosts, {done.pairs} pairs: full after {done.seconds:.1f} s with {done.initiations} "
        f"initiations ({done.initiations / done.pairs:.2f} a pair), {done.ended} duplicates ended, "
        f"{done.downs} peer-downs; {len(done.faults)} faults when quiet"
    )


def main() -> int:
    """The command."""
    words = sys.argv[1:] or ["40"]
    if len(words) != 1 or not words[0].isdigit() or not 2 <= int(words[0]) <= 200:
        sys.stderr.write(f"HOSTS={' '.join(words)}: say a number from 2 to 200\n")
        return 2
    if not os.environ.get("LAB"):
        sys.stderr.write("run it as: lab/run python -m lab.cold_start [HOSTS], or: make cold-start\n")
        return 2
    hosts = int(words[0])
    with mesh(hosts, name="cold-start") as lab:
        print(f"{hosts} hosts; their charons start", flush=True)
        lab.start_charons(300)
        print("every charon answers; every controller starts", flush=True)
        done = cold_start(lab, 60 + 10 * hosts)
    for fault in done.faults:
        print(fault)
    print(last_line(done))
    return 1 if done.faults else 0


if __name__ == "__main__":
    sys.exit(main())
