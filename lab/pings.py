"""A stream of pings of which every single one is accounted for."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.namespaces import Namespace

_LINE = re.compile(r"^\[(\d+\.\d+)\] (?:(\d+ bytes) from .*|no answer yet for |From .*)icmp_seq=(\d+)")
_SEQUENCES = 1 << 16
_CLOCK_MONOTONIC_COARSE = 6  # linux/time.h
_LATE = 1.0
"""Seconds that a reply may take before it counts as lost."""


@dataclass(frozen=True)
class PingResult:
    """What a stream came to."""

    sent: int
    received: int

    @property
    def lost(self) -> int:
        return self.sent - self.received


class PingStream:
    """`ping` from inside a namespace until stopped.

    ping's own summary calls a packet lost that was still on its way when ping was told to end. So each
    answer is read, and the last second does not count: what was sent before it had time to come back.
    """

    def __init__(self, namespace: Namespace, address: str, log: Path, *, interval: float = 0.01) -> None:
        # ping waits in ticks of the kernel's clock, up to one more than asked for; below 10 ms it does not
        # wait but spins. So where a tick is that long, two of them at half the rate make a stream.
        copies = 2 if interval < 2 * _tick() else 1
        command = ("ping", "-D", "-n", "-O", "-i", f"{interval:g}", address)
        self._logs = [log.with_name(f"{log.name}.{copy}") for copy in range(copies)]
        self._processes = [_start(command, namespace, path) for path in self._logs]

    def stop(self, stopped: float | None = None) -> PingResult:
        """Waits until the last packet sent before `stopped` (now) is answered or lost, and counts.

        `stopped` is in seconds since the epoch: many streams that end at one moment wait but once.
        Raises RuntimeError if nothing was sent at all: such a stream proves nothing.
        """
        stopped = time.time() if stopped is None else stopped
        # Not a guess at when something is ready: the time that a reply has is part of what is measured.
        time.sleep(max(0, stopped + _LATE - time.time()))
        for process in self._processes:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=10)
        results = [_count(log, stopped) for log in self._logs]
        return PingResult(sum(one.sent for one in results), sum(one.received for one in results))

    def kill(self) -> None:
        """Ends it without counting."""
        for process in self._processes:
            process.kill()
            process.wait()


def _tick() -> float:
    """Seconds between two ticks of the kernel's clock."""
    return time.clock_getres(_CLOCK_MONOTONIC_COARSE)


def _start(command: Sequence[str], namespace: Namespace, log: Path) -> subprocess.Popen[bytes]:
    with namespace.entered(), log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def _count(log: Path, stopped: float) -> PingResult:
    sent, received = 0, set()
    for moment, sequence, answered in _events(log):
        if answered:
            received.add(sequence)
        if moment <= stopped:
            sent = max(sent, sequence)
    if sent == 0:
        raise RuntimeError(f"ping sent nothing: {log.read_text(errors='replace')[-300:]}")
    return PingResult(sent, len([sequence for sequence in received if sequence <= sent]))


def _events(log: Path) -> Iterator[tuple[float, int, bool]]:
    """Time, sequence number counted on past 16 bits, and whether it is an answer."""
    last = 0
    for line in log.read_text(errors="replace").splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        step = (int(found[3]) - last + _SEQUENCES // 2) % _SEQUENCES - _SEQUENCES // 2
        sequence = last + step
        last = max(last, sequence)
        yield float(found[1]), sequence, found[2] is not None
