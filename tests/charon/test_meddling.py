"""What charon does when others take its policies away, and what its log tells when they take ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swanmesh.charon.client import Charon
from swanmesh.charon.codec import encode
from swanmesh.charon.events import EventReader
from swanmesh.charon.messages import Decoder
from swanmesh.core import actions
from swanmesh.core.connections import Connection, Kind
from swanmesh.core.observed import Hint
from swanmesh.core.reasons import Reason
from tests.charon.certificates import Authority
from tests.charon.conftest import RealServer
from tests.charon.helpers import asynchronous, client, connected, connection, next_event
from tests.charon.real import ip

ESP, DROP = "esp-0123456789abcdef", "drop-0123456789abcdef"


def trap(name: str = "one") -> Connection:
    return replace(connection(name), child=ESP, trap=True)


def shunt(name: str = "one") -> Connection:
    return replace(trap(name), child=DROP, kind=Kind.DROP, addresses=None, terms=None)


def policies(server: RealServer) -> list[str]:
    lines = ip("-o", "-n", server.charon.namespace, "xfrm", "policy").splitlines()
    return sorted(line for line in lines if "dir " in line)


@pytest.mark.parametrize("made", [trap(), shunt()], ids=["trap", "shunt"])
@asynchronous
async def test_flushed_policies_are_installed_again(
    pair: tuple[RealServer, RealServer], made: Connection
) -> None:
    server, _ = pair
    async with connected(server) as charon:
        await charon.perform(actions.LoadConnection(connection=made, reason=Reason("test", "a test")))
        before = policies(server)
        assert len(before) >= 2
        ip("-n", server.charon.namespace, "xfrm", "policy", "flush")
        assert policies(server) == []
        await charon.load_connections([made])
        assert policies(server) == []  # charon takes them for installed
        install = actions.InstallPolicies(
            connection=made.name, child=made.child, peer="", reason=Reason("test", "a test")
        )
        await charon.perform(install)
        assert policies(server) == before
        await charon.perform(install)
        assert policies(server) == before
        await charon.unload_connection(made.name)
        assert policies(server) == []


@asynchronous
async def test_an_unloaded_trap_and_an_unloaded_key_are_hints(pair: tuple[RealServer, RealServer]) -> None:
    server, _ = pair
    certificate, key = Authority().issue("a.mesh.example")
    async with connected(server) as charon:
        await charon.load_connections([trap()])
        key_id = await charon.load_credentials(certificate, key)
        async with client(server) as other:
            await other.unload_connection("one")
            await other._request("unload-key", {"id": key_id})
        hints = [await next_event(charon, Hint)]
        while hints[-1].reason.code != "key-unloaded":
            hints.append(await next_event(charon, Hint))
        # 6.0 names the connection first.
        assert {hint.unloaded for hint in hints[:-1]} - {"one"} == {ESP}
        assert await loaded(charon) == ([], frozenset())


async def loaded(charon: Charon) -> tuple[list[str], frozenset[str]]:
    connections = await charon.observe_connections()
    return [found.name for found in connections], (await charon.observe_credentials()).key_ids


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"uninstalling '{ESP}'", (ESP, ESP)),
        (f"vici uninstalling '{ESP}'", (ESP, ESP)),
        (f"vici uninstall '{ESP}'", (ESP, "")),
        ("removed vici connection: one", ("", "one")),
        ("unloaded private key with id 0011", ("", "")),
        ("loaded ECDSA private key", None),
        (f"installing '{ESP}'", None),
        (f"vici installing '{ESP}'", None),
        ("received DELETE for 'uninstalling '", None),
    ],
)
def test_lines_that_hint(line: str, told: tuple[str, str] | None) -> None:
    payload = encode("log", {"group": b"CFG", "level": b"1", "msg": line.encode()})
    events = EventReader(Decoder()).read("log", payload)
    hints = [(event.child, event.unloaded) for event in events if isinstance(event, Hint)]
    assert hints == ([] if told is None else [told])


def test_a_common_line_is_passed_over_undecoded() -> None:
    decoder = Decoder()
    cut = encode("log", {"group": b"IKE", "msg": b"sending DPD request"})[:-1]
    assert not EventReader(decoder).read("log", cut) and decoder.skipped == 0
