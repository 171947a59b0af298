"""`make test-data` boots them; where KERNELS is not set, all of this is passed over (`make test`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.data import machine
from tests.data import known

KERNELS = os.environ.get("KERNELS", "").split()
SMOKE = bool(os.environ.get("SMOKE"))
COUNTED = bool(os.environ.get("COUNTED"))
"""One processor whose instructions are the clock, in place of two at their own pace, which miss time limits
on a busy machine."""

pytestmark = pytest.mark.skipif(not KERNELS, reason="`make test-data` runs these")

_WITHIN = 2400.0 if COUNTED else 600.0
"""Seconds for a guest; on an idle machine it takes a few minutes."""


@pytest.fixture(scope="module", params=KERNELS)
def guest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[machine.Kernel, Path]:
    kernel = machine.kernel(request.param)
    return kernel, machine.initrd(kernel, tmp_path_factory.mktemp("guest"))


@pytest.mark.parametrize("card", ["gso", "tso", "none"])
@pytest.mark.parametrize("offload", [False, True], ids=["without-modules", "with-modules"])
def test_what_arrives_is_what_was_sent(guest: tuple[machine.Kernel, Path], card: str, offload: bool) -> None:
    if SMOKE and (card != "gso" or not offload):
        pytest.skip("smoke")
    _all_hold(guest, {"cards": [card], "offload": [offload], "families": [4, 6], "modules": False})


def test_modules_come_and_go_under_states(guest: tuple[machine.Kernel, Path]) -> None:
    _all_hold(guest, {"cards": [], "offload": [], "families": [4, 6], "modules": True})


def _all_hold(guest: tuple[machine.Kernel, Path], job: dict[str, Any]) -> None:
    kernel, base = guest
    checks = list(_checks(kernel, base, job))
    assert checks, "the guest tried nothing"
    broken = list(known.unknown(kernel.version, checks))
    assert not broken, "\n" + "\n".join(_words(kernel, check) for check in broken)
    mended = list(known.mended(kernel.version, checks))
    assert not mended, "\n".join(
        [f"{kernel.version} is mended: change tests/data/known.py and core/segmentation.py", *mended]
    )
    if faults := known.shown(kernel.version, checks):
        pytest.xfail("; ".join(faults))


def _checks(kernel: machine.Kernel, base: Path, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for found in machine.run(kernel, base, {"do": "check", **job}, counted=COUNTED, within=_WITHIN):
        if found.get("what") == "check":
            print(found)
            yield found


def _words(kernel: machine.Kernel, check: dict[str, Any]) -> str:
    told = ("what", "ok", "name", "detail", "seconds")
    where = ", ".join(f"{key} {value}" for key, value in check.items() if key not in told)
    return f"{kernel.version}: {check['name']} ({where}): {check['detail']}"
