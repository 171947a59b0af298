"""The guard and the filter of UDP 4500 in this machine's kernel: two network namespaces on a cable.

It takes no ESP, so what charon's associations carry is the lab's to try (tests/lab/test_guard.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from swanmesh.core.guard.policies import Cover, Exempt, Ground, Opening, Part, policies_of
from swanmesh.core.model import AddressPair
from swanmesh.core.settings.exemptions import check_exemption
from swanmesh.kernel import netlink
from swanmesh.kernel.packet_filter import Filter, script

_MINE, _PEERS = ("203.0.113.1", "2001:db8::1"), ("203.0.113.2", "2001:db8::2")
_TRY = """
import json, os, socket, subprocess, sys, time
from swanmesh.kernel import boot
from swanmesh.kernel.guard import refusals, standing
from swanmesh.core.guard.policies import last_used
from swanmesh.kernel.packet_filter import counts, nft

given = json.loads(sys.stdin.read())

def run(*command):
    subprocess.run(command, check=True)

def there(*command, **options):
    return subprocess.Popen(("nsenter", f"--net=/proc/{peer.pid}/ns/net", *command), text=True, **options)

peer = subprocess.Popen(("unshare", "--net", "sh", "-c", "echo; exec sleep 600"), stdout=subprocess.PIPE)
peer.stdout.readline()
try:
    run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", str(peer.pid))
    run("ip", "link", "set", "v0", "up")
    run("ip", "link", "set", "lo", "up")
    there("ip", "link", "set", "v1", "up").wait()
    for mine, its in zip(given["mine"], given["its"]):
        bits, nodad = ("64", ["nodad"]) if ":" in mine else ("24", [])
        run("ip", "addr", "add", f"{mine}/{bits}", "dev", "v0", *nodad)
        there("ip", "addr", "add", f"{its}/{bits}", "dev", "v1", *nodad).wait()
    apply = "import sys; from swanmesh.kernel import boot; boot.apply(bytes.fromhex(sys.stdin.read()))"
    assert boot.apply(bytes.fromhex(given["ours"])) == []
    process = there(sys.executable, "-c", apply, stdin=subprocess.PIPE)
    process.communicate(given["theirs"])
    assert process.returncode == 0
    if given["nft"]:
        assert nft("-f", "-", stdin=given["nft"]) == ""
    server = (
        "import socket, sys\\n"
        "s = socket.create_server(('::', int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)\\n"
        "print(flush=True)\\n"
        "while True: s.accept()[0].sendall(b'x')"
    )
    heard = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    heard.bind(("::", 4500))
    heard.settimeout(1)
    found = {"tcp": {}, "errors": []}
    for port in (22, 23):
        listening = there(sys.executable, "-c", server, str(port), stdout=subprocess.PIPE)
        listening.stdout.readline()
        for its in given["its"]:
            try:
                with socket.create_connection((its, port), 1) as connection:
                    found["tcp"][f"{its} {port}"] = connection.recv(1) == b"x"
            except OSError as error:
                found["tcp"][f"{its} {port}"] = False
                found["errors"].append(type(error).__name__)
        listening.kill()
        listening.wait()
    send = (
        "import socket, sys; family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET\\n"
        "socket.socket(family, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 4500))"
    )
    found["udp"] = []
    for mine in given["mine"]:
        there(sys.executable, "-c", send, mine, stderr=subprocess.DEVNULL).wait()
        try:
            found["udp"].append(heard.recv(8) == b"x")
        except TimeoutError:
            found["udp"].append(False)
    if given["count"]:
        for mine in given["mine"]:
            there("ping", "-q", "-c", "2", "-i", "0.2", "-W", "1", mine, stdout=subprocess.DEVNULL).wait()
        found["counted"] = {str(each): list(crossed) for each, crossed in counts().items()}
        assert nft("-f", "-", stdin=given["nft"]) == ""
        assert {str(each): list(crossed) for each, crossed in counts().items()} == found["counted"]
    found["refused"] = refusals()
    found["used"] = sorted(str(key[0]) for key in last_used(standing()))
    print(json.dumps(found))
finally:
    peer.kill()
"""


def in_kernel(
    ours: tuple[Part, ...], theirs: tuple[Part, ...] = (), nft: str = "", *, count: bool = False
) -> Any:
    """What comes of connections to the peer's ports 22 and 23 and of its packets to UDP 4500 here, where this
    host has these parts of a guard, and the peer those."""

    def messages(parts: tuple[Part, ...]) -> str:
        policies = [policy for part in parts for policy in policies_of(part).values()]
        return b"".join(netlink.changes(policies, ())).hex()

    given: dict[str, Any] = {"mine": _MINE, "its": _PEERS, "ours": messages(ours), "theirs": messages(theirs)}
    given |= {"nft": nft, "count": count}
    done = subprocess.run(
        ["/usr/bin/unshare", "--net", sys.executable, "-c", _TRY],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _able() -> bool:
    """Whether this process may make network namespaces, and their kernel has IPsec policies."""
    if os.geteuid() != 0:
        return False
    tried = subprocess.run(
        ["/usr/bin/unshare", "--net", "ip", "xfrm", "policy"], capture_output=True, check=False
    )
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not _able(), reason="takes root and a kernel with XFRM")


def guard(addresses: tuple[str, ...], *exempt: str, closed: bool = True) -> tuple[Part, ...]:
    """Of a host whose peer has these addresses."""
    parts: list[Part] = [Ground(4), Ground(6)]
    exemptions = tuple(map(check_exemption, exempt))
    for each in map(ip_address, addresses):
        parts.append(Cover(each, each.max_prefixlen, closed=closed, source="peer"))
        if exemptions:
            parts.append(Exempt(each, each.max_prefixlen, exemptions, "peer"))
    return tuple(parts)


def connections(found: Any) -> set[int]:
    """Ports that were reached, over both families alike."""
    ports = [
        {int(key.split()[1]) for key, reached in found["tcp"].items() if reached and key.split()[0] == its}
        for its in _PEERS
    ]
    assert ports[0] == ports[1], found
    return ports[0]


def test_a_closed_peer_is_refused_at_once_and_seen() -> None:
    found = in_kernel(guard(_PEERS))
    assert connections(found) == set() and set(found["errors"]) == {"PermissionError"}, "no time-out"
    assert found["udp"] == [False, False]
    assert found["refused"]["out"] >= 4 and found["refused"]["in"] >= 2
    assert found["used"] == sorted(_PEERS)


def test_what_passes_in_clear_is_seen_where_nothing_is_closed() -> None:
    found = in_kernel(guard(_PEERS, closed=False))
    assert connections(found) == {22, 23} and found["udp"] == [True, True]
    assert not any(found["refused"].values()) and found["used"] == sorted(_PEERS)


@pytest.mark.parametrize(
    ("ours", "theirs", "reached"),
    [
        (("tcp/22",), ("tcp/22",), {22}),
        (("tcp/22",), (), set()),
        ((), ("tcp/22",), set()),
        (("tcp/22", "tcp/23"), ("tcp/23",), {23}),
    ],
)
def test_a_service_is_in_clear_if_both_ends_exempt_it(
    ours: tuple[str, ...], theirs: tuple[str, ...], reached: set[int]
) -> None:
    assert connections(in_kernel(guard(_PEERS, *ours), guard(_MINE, *theirs))) == reached


def test_an_opening_closes_by_itself_where_no_service_is_left_to_close_it() -> None:
    pair = AddressPair(ip_address(_MINE[0]), ip_address(_PEERS[0]))
    policies = [policy._replace(lasts=1) for policy in Opening(pair, out=True).policies()]
    script = (
        "import sys, time; from swanmesh.kernel import boot; from swanmesh.kernel.guard import standing\n"
        "assert boot.apply(bytes.fromhex(sys.stdin.read())) == [] and len(standing()) == 2\n"
        "end = time.monotonic() + 30\n"
        "while standing():\n    assert time.monotonic() < end\n    time.sleep(0.1)"
    )
    command = ["/usr/bin/unshare", "--net", sys.executable, "-c", script]
    subprocess.run(command, input=b"".join(netlink.changes(policies, ())).hex(), text=True, check=True)


@pytest.mark.parametrize(
    ("wanted", "heard"),
    [
        (Filter(frozenset(map(ip_address, _PEERS))), [False, False]),
        (Filter(frozenset(map(ip_address, _PEERS)), frozenset({ip_address(_PEERS[0])})), [True, False]),
        (Filter(frozenset({ip_network("203.0.113.0/24")})), [False, True]),
        (Filter(), [True, True]),
    ],
)
def test_udp_4500_comes_in_from_those_alone_that_need_it(wanted: Filter, heard: list[bool]) -> None:
    if not _nft():
        pytest.skip("takes nft, and a kernel with its inet family")
    assert in_kernel((), nft=script(wanted))["udp"] == heard


@pytest.mark.parametrize(
    "counted", [_PEERS, ("203.0.113.0/24", "2001:db8::/64")], ids=["peers", "hosts of a block"]
)
def test_clear_text_is_counted_for_each_address_and_what_was_counted_stays(counted: tuple[str, ...]) -> None:
    if not _nft():
        pytest.skip("takes nft, and a kernel with its inet family")
    parsed = frozenset(ip_network(each) if "/" in each else ip_address(each) for each in counted)
    wanted = script(Filter(counted=parsed))
    passed = in_kernel(guard(_PEERS, closed=False), nft=wanted, count=True)["counted"]
    assert passed.keys() >= set(_PEERS)
    for each in _PEERS:
        out, into = passed[each]
        assert out > 2 and into > 2
    refused = in_kernel(guard(_PEERS), nft=wanted, count=True)["counted"]
    # Two pings came in; what this host tried met the guard before anything that counts.
    assert [refused[each] for each in _PEERS] == [[0, 2], [0, 2]]


def _nft() -> bool:
    try:
        command = ["/usr/bin/unshare", "--net", "nft", "add", "table", "inet", "swanmesh"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
