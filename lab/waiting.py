"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float, why: str, *, interval: float = 0.05) -> T:
    """Calls `condition` until its result is true, and returns that result.

    `timeout` and `interval` are seconds. Raises TimeoutError with `why` and what `condition` returned or
    raised last. An OSError or LookupError counts as "not yet": what is waited for is often a socket or a
    file that is still to come.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            seen = condition()
            if seen:
                return seen
            last = repr(seen)
        except (OSError, LookupError) as error:
            last = repr(error)
        if time.monotonic() >= end:
            raise TimeoutError(f"after {timeout:g} s still waiting until {why}; last seen: {last}")
        time.sleep(interval)
