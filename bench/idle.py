"""What the service costs while nothing is asked of it: memory, and CPU over a while."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.processes import Service, Usage, charon, fake_charon, is_real, service, usage
from bench.results import Line, Results, verdict
from bench.site import Site, build

_MEMORY = 80 * 1024 * 1024
_SHARE = 0.005
_SHARE_TRYING = 0.01
_Start = Callable[[Site], contextlib.AbstractContextManager["subprocess.Popen[bytes]"]]


@dataclass
class _Case:
    what: str
    note: str
    charon: subprocess.Popen[bytes]
    running: Service
    share: float
    """Of one CPU, at most."""
    before: tuple[Usage, Usage] | None = None


def measure(results: Results, folder: Path, count: int, seconds: float) -> None:
    """Three services side by side over the same while: each has its own count of CPU seconds."""
    with contextlib.ExitStack() as stack:

        def start(name: str, what: str, note: str, charon: _Start, *, passive: bool, share: float) -> _Case:
            site = build(folder / name, count, passive=passive)
            process = stack.enter_context(charon(site))
            running = stack.enter_context(service(site, process))
            running.await_loads(count + 1)
            return _Case(what, note, process, running, share)

        up = start("up", "all up", "a charon that tells of them", fake_charon, passive=False, share=_SHARE)
        quiet = start("quiet", "all waited for", "trap and no attempt", charon, passive=True, share=_SHARE)
        dead = start(
            "dead",
            "none reachable",
            "all of them tried, and now and then again",
            charon,
            passive=False,
            share=_SHARE_TRYING,
        )
        up.running.await_up()
        dead.running.await_rest()
        cases = (up, quiet, dead)
        for case in cases:
            case.before = (usage(case.running.pid), usage(case.charon.pid))
        began = time.monotonic()
        _let_pass(cases, seconds)
        lines = [line for case in cases for line in _lines(case, count, time.monotonic() - began)]
    results.add(f"the service at {count:,} peers (theirs: the real charon beside it)", *lines)


def _let_pass(cases: tuple[_Case, ...], seconds: float) -> None:
    """The time is what is measured; a process that ends meanwhile ends the measurement."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for case in cases:
            for process in (case.charon, case.running.process):
                if process.poll() is not None:
                    raise RuntimeError(f"{case.what}: a process ended with status {process.returncode}")
        time.sleep(min(1.0, left))


def _lines(case: _Case, count: int, seconds: float) -> list[Line]:
    assert case.before is not None  # noqa: S101
    ours, theirs = usage(case.running.pid), usage(case.charon.pid)
    real = is_real(case.charon)
    share = (ours.cpu - case.before[0].cpu) / seconds
    beside = (theirs.cpu - case.before[1].cpu) / seconds
    memory = 1024 * 1024
    return [
        Line(
            what=f"{case.what}: memory (RSS)",
            ours=ours.rss / memory,
            theirs=theirs.rss / memory if real else None,
            unit="MiB",
            goal=f"below {_MEMORY // memory} MiB",
            met=verdict(count, ours.rss < _MEMORY),
            note=f"PSS {ours.pss / memory:.0f} MiB; {case.note}",
        ),
        Line(
            what=f"{case.what}: share of one CPU",
            ours=share * 100,
            theirs=beside * 100 if real else None,
            unit="%",
            goal=f"below {case.share:.1%}",
            met=verdict(count, share < case.share),
            note=f"over {seconds:.0f} s",
        ),
    ]
