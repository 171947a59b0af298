"""The addresses that this machine has, asked of a real kernel."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address

from swanmesh.machine.addresses import own_addresses
from tests.unit.config.elsewhere import REPOSITORY

_SCRIPT = """
ip link set lo up
ip addr add 192.0.2.7/24 dev lo
ip addr add 198.51.100.1 peer 198.51.100.2 dev lo
ip addr add 2001:db8::7/64 dev lo nodad
for number in $(seq 1 200); do ip addr add 203.0.113.$number/32 dev lo; done
exec "$@"
"""


def said_elsewhere(code: str) -> list[str]:
    """The words that a program prints in a network namespace with those addresses."""
    within = ["unshare", "--user", "--map-root-user", "--net", "sh", "-ec", _SCRIPT, "sh"]
    done = subprocess.run(
        [*within, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=REPOSITORY,
    )
    return done.stdout.split()


def test_the_loopback_has_its_address() -> None:
    assert ip_address("127.0.0.1") in own_addresses()


def test_all_addresses_are_told_and_of_a_link_of_two_our_own() -> None:
    code = "from swanmesh.machine.addresses import own_addresses\nprint(*own_addresses())"
    found = set(said_elsewhere(code))
    assert {"127.0.0.1", "::1", "192.0.2.7", "198.51.100.1", "2001:db8::7"} <= found
    assert {f"203.0.113.{number}" for number in range(1, 201)} <= found
    assert "198.51.100.2" not in found


_FOLLOW = """
import asyncio, subprocess
from swanmesh.machine.addresses import address_changes, own_addresses

async def follow():
    changes = address_changes()
    await anext(changes)
    for words in ("add 192.0.2.8/24 dev lo", "del 192.0.2.8/24 dev lo", "add 2001:db8::8/64 dev lo nodad"):
        subprocess.run(["ip", "addr", *words.split()], check=True)
        await asyncio.wait_for(anext(changes), 30)
        print("192.0.2.8" in map(str, own_addresses()))

asyncio.run(follow())
"""


def test_addresses_that_come_and_go_are_told() -> None:
    assert said_elsewhere(_FOLLOW) == ["True", "False", "False"]
