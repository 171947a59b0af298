"""The service's process: waits for valid files, begins to log, and runs the loop."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from swanmesh.core.model import InvalidInput, Problem
from swanmesh.service import logs
from swanmesh.service.daemon import Daemon
from swanmesh.service.loop import now
from swanmesh.service.sources import Sources
from swanmesh.service.systemd import Notifier

_LOOK_AGAIN = 1.0
"""Seconds between looks at files that were not valid when the service began."""


def process_age() -> float:
    """Seconds since this process was started: field 22 of /proc/self/stat is in ticks since boot, proc(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return max(0.0, now() - int(fields[19]) / os.sysconf("SC_CLK_TCK"))


def wait_for_sources(path: Path, notifier: Notifier) -> Sources | None:
    """This host's files, once they are valid: whoever mends them need not start the service as well. None if
    a signal came first."""
    told: tuple[Problem, ...] = ()
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        while True:
            try:
                return Sources(path)
            except InvalidInput as invalid:
                if invalid.problems != told:
                    told = invalid.problems
                    for problem in told:
                        logs.complain(problem)
                    logs.complain("waiting until that is put right; nothing was changed")
                    notifier.ready(f"waiting for valid files: {told[0]}")
            notifier.watchdog()
            if signal.sigtimedwait(stops, _LOOK_AGAIN) is not None:
                return None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)


def main(path: Path) -> int:
    """`swanmesh run`: returns the exit status."""
    notifier = Notifier(os.environ)
    try:
        sources = wait_for_sources(path, notifier)
        if sources is None:
            return 0
        config = sources.config
        logs.configure(config.log.level, config.log.format)
        asyncio.run(Daemon(sources, notifier, began=now() - process_age()).run())
    except OSError as error:
        logs.complain(error)
        return 1
    finally:
        notifier.close()
    return 0
