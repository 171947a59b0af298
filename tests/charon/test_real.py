"""The real charon's keeper cleans up after itself, and after one that was killed."""

from __future__ import annotations

import os
import subprocess

from tests.charon import real


def _a_dead_process() -> int:
    ended = subprocess.Popen(["/usr/bin/true"])
    ended.wait()
    return ended.pid


def test_leftovers_of_a_killed_run_go_and_those_of_a_living_one_stay(clean_machine: None) -> None:
    left, living = f"{real.PREFIX}-{_a_dead_process()}-0", f"{real.PREFIX}-{os.getpid()}-0"
    for name in (left, living):
        real.ip("netns", "add", name)
    forgotten = subprocess.Popen(["/usr/sbin/ip", "netns", "exec", left, "/usr/bin/sleep", "60"])
    try:
        while not real.ip("netns", "pids", left).split():
            assert forgotten.poll() is None
        real.remove_leftovers()
        assert forgotten.wait(5) != 0
        names = [line.split()[0] for line in real.ip("netns", "list").splitlines()]
        assert left not in names
        assert living in names
    finally:
        if forgotten.poll() is None:
            forgotten.kill()
        real.remove_namespace(living)
