"""What the service keeps of the guard for the next boot."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

from swanmesh.core.mesh import Mesh
from swanmesh.core.settings.override import HOST, Override, Trial
from swanmesh.core.settings.policy import Policy
from swanmesh.kernel.guard import FILE, kept
from swanmesh.service import logs
from swanmesh.service.guarding import Guarding
from tests.charon.helpers import asynchronous
from tests.unit.core.build import peer, settings


@asynchronous
async def test_a_policy_on_trial_is_none_for_the_next_boot(tmp_path: Path) -> None:
    """The host may boot meanwhile, and its service may not start: nobody would be there to go back."""
    host = settings(policy=Policy.PREFER)
    mesh = Mesh(host, seed=1, kernel=True)
    mesh.update_peers([peer()], (), 0.0)
    guarding = Guarding(mesh.state, lambda: tmp_path, logs.logger())
    keeping = asyncio.create_task(guarding.keep_file())

    def closed() -> bool:
        return (tmp_path / FILE).exists() and any(not policy.allow for policy in kept(tmp_path))

    async def look_until(condition: bool) -> None:
        async with asyncio.timeout(20):
            while closed() != condition or not (tmp_path / FILE).exists():
                guarding.look()
                await asyncio.sleep(0.01)

    await look_until(False)
    trial = Trial(policy=Policy.REQUIRE, before={HOST: Policy.PREFER})
    mesh.configure(replace(host, override=Override(trial=trial)), 1.0)
    guarding.look()
    # Nothing tells that it does not write: what it would have written in no time is looked for a while.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await look_until(True)
    assert not closed()
    mesh.configure(replace(host, policy=Policy.REQUIRE), 2.0)
    await look_until(True)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
