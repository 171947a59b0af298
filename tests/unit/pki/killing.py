"""Runs an action in a child that is killed at its nth step on the disk, for each n until it gets through."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_STEPS = ("write", "fsync", "link", "unlink")


def killed_everywhere(action: Callable[[], object]) -> Iterator[int]:
    """After each kill, its number: look then at what was left. The last run is not killed."""
    for step in range(1, 100):
        child = os.fork()
        if child == 0:
            _die_at(step)
            # Whatever happens, the child must not go on as a second run of the tests.
            status = 1
            try:
                action()
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        yield step
        if not os.WIFSIGNALED(status):
            assert status == 0
            return
    raise AssertionError("the action takes too many steps")


def _die_at(step: int) -> None:
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in _STEPS:
        setattr(os, name, counted(getattr(os, name)))
    for name in ("replace", "unlink", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))
