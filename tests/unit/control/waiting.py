"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout: float, why: str) -> None:
    """Returns once `condition` holds. Raises TimeoutError after `timeout` seconds, naming `why`."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {timeout:g} s still waiting until {why}")
        time.sleep(0.005)
