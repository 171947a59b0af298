"""Routes to single peers, on this machine's kernel in a network namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SETUP = """
ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up && ip link set lo up
ip address add 192.0.2.1/24 dev v0 && ip route add default via 192.0.2.254
ip address add 2001:db8::1/64 dev v0 nodad && ip route add 198.51.100.7/32 via 192.0.2.253
"""
TRY = """
import subprocess
from ipaddress import ip_address
from swanmesh.core.model import AddressPair
from swanmesh.kernel import routes

def routes_of_ours():
    shown = []
    for family in ("-4", "-6"):
        words = ("ip", family, "route", "show", "proto", "156")
        shown += subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return [" ".join(line.split()) for line in shown]

def pair(remote):
    return AddressPair(ip_address("192.0.2.1" if ":" not in remote else "2001:db8::1"), ip_address(remote))
"""


def inside(script: str) -> str:
    """What the script prints in a fresh network namespace."""
    command = ("unshare", "--net", "sh", "-c", f'set -e\n{SETUP}\nexec "$0" -c "$1"', sys.executable)
    done = subprocess.run((*command, TRY + script), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace")


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        ("192.0.2.2", "192.0.2.2 dev v0 scope link src 192.0.2.1 mtu lock 1397"),
        ("203.0.113.9", "203.0.113.9 via 192.0.2.254 dev v0 src 192.0.2.1 mtu lock 1397"),
        ("2001:db8::2", "2001:db8::2 dev v0 src 2001:db8::1 metric 1024 mtu lock 1397 pref medium"),
    ],
)
def test_a_route_to_the_peer_says_what_passes_and_goes_without_a_trace(remote: str, shown: str) -> None:
    script = f"""
before = subprocess.run(("ip", "route"), capture_output=True, text=True).stdout
routes.limit(pair("{remote}"), 1366, 1466)
print(*routes_of_ours(), sep="|")
routes.limit(pair("{remote}"), 1366, 1466)
assert len(routes_of_ours()) == 1
routes.limit(pair("{remote}"), 0, 0)
assert routes_of_ours() == []
assert subprocess.run(("ip", "route"), capture_output=True, text=True).stdout == before
"""
    assert inside(script) == shown


def test_a_route_of_somebody_elses_stays_as_it_is() -> None:
    script = """
try:
    routes.limit(pair("198.51.100.7"), 1366, 1466)
except FileExistsError:
    print("refused")
print(subprocess.run(("ip", "route", "show", "198.51.100.7"), capture_output=True, text=True).stdout.strip())
routes.limit(pair("198.51.100.7"), 0, 0)
print(subprocess.run(("ip", "route", "show", "198.51.100.7"), capture_output=True, text=True).stdout.strip())
"""
    assert inside(script).splitlines() == ["refused", *["198.51.100.7 via 192.0.2.253 dev v0"] * 2]


def test_what_another_controller_left_is_taken_away_and_nothing_else() -> None:
    script = """
for remote in ("192.0.2.2", "203.0.113.9", "2001:db8::2"):
    routes.limit(pair(remote), 1366, 1466)
print(routes.clear(), routes_of_ours())
print(subprocess.run(("ip", "route", "show", "198.51.100.7"), capture_output=True, text=True).stdout.strip())
"""
    assert inside(script).splitlines() == ["3 []", "198.51.100.7 via 192.0.2.253 dev v0"]
