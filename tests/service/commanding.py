"""Commands as people give them, beside a service on the test's loop."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.commands import Ended
from tests.service.running import Place


async def swanmesh(place: Place, *arguments: str, ssh: str = "") -> Ended:
    """One command with this place's configuration, by somebody who came over SSH from an address, if that is
    given."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("SSH_", "SWANMESH_"))
    }
    if ssh:
        environment["SSH_CONNECTION"] = f"{ssh} 50022 192.0.2.1 2222"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "swanmesh", "--config", str(place.config), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())
