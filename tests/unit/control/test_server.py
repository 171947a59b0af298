"""Requests and answers over a real control socket."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.waiting import wait_until
from swanmesh.control.client import (
    Client,
    RequestRefused,
    ServiceTimeout,
    ServiceUnreachable,
    _UnixConnection,
)
from swanmesh.control.gate import Limits
from swanmesh.control.protocol import PlannedAction, ReloadReply
from swanmesh.core.events import MeshEvent
from tests.unit.control.plain_service import ServerThread, peer_status, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerThread]:
    with serving(tmp_path / "control.sock", limits=Limits(heartbeat=0.1, longest_wait=600)) as thread:
        yield thread


def ask(server: ServerThread, method: str, address: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = _UnixConnection(server.socket, 10)
    try:
        connection.request(method, address, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_status_holds_all_peers_or_those_named(server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3", "down", "dead"))
    client = Client(server.socket)
    assert [peer.name for peer in client.status().peers] == ["web2", "web3"]
    assert [peer.state for peer in client.status(["WEB3"]).peers] == ["down"]


def test_unknown_peer_is_404_with_its_name(server: ServerThread) -> None:
    with pytest.raises(RequestRefused, match="web9") as refused:
        Client(server.socket).status(["web9"])
    assert refused.value.status == 404


def test_status_of_more_peers_than_an_address_line_holds(server: ServerThread) -> None:
    names = [f"web{number}.{'x' * 60}.mesh.example" for number in range(300)]
    server.service.put(*(peer_status(name, "203.0.113.2") for name in names), peer_status("z", "203.0.113.3"))
    assert [peer.name for peer in Client(server.socket).status(names).peers] == names


def test_plan(server: ServerThread) -> None:
    server.service.actions = [
        PlannedAction(action="initiate", peer="web2", target="mesh-web2", reason="ours to initiate")
    ]
    assert Client(server.socket).plan().actions[0].reason == "ours to initiate"


def test_reload_passes_the_files_on(server: ServerThread) -> None:
    server.service.reload_reply = ReloadReply(changed=["web2"], problems=[])
    client = Client(server.socket)
    assert client.reload([Path("/etc/swanmesh/peers.d/web2.yaml")]).changed == ["web2"]
    client.reload()
    assert [request.files for request in server.service.reloads] == [
        ["/etc/swanmesh/peers.d/web2.yaml"],
        None,
    ]


def test_peer_command(server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"))
    assert Client(server.socket).command("down", ["WEB2"], wait=1.0).done == {"web2": "down done"}
    assert server.service.commands == [("down", "web2")]
    with pytest.raises(RequestRefused, match="web9"):
        Client(server.socket).command("up", ["web2", "web9"])
    assert server.service.commands == [("down", "web2")]


def test_wait_returns_when_the_peer_comes_up(server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2", "connecting", "waits for an answer"))
    client = Client(server.socket)
    assert client.wait(["web2"], 0.05).missing == {"web2": "waits for an answer"}
    answers = []
    waiter = threading.Thread(target=lambda: answers.append(client.wait(["web2"], 20)))
    waiter.start()
    server.call(server.service.put, peer_status("web2", "203.0.113.2"))
    waiter.join(10)
    assert answers and answers[0].missing == {}


def test_wait_for_absence_and_for_many(server: ServerThread) -> None:
    names = [f"web{number}" for number in range(200)]
    server.service.put(*(peer_status(name, "203.0.113.2") for name in names))
    client = Client(server.socket)
    assert client.wait(names, 5).missing == {}
    assert len(client.wait(names, 0.0, gone=True).missing) == 200


@pytest.mark.parametrize(
    ("method", "address", "body", "status"),
    [
        ("GET", "/v1/nothing", None, 404),
        ("POST", "/v1/status", b"{}", 405),
        ("GET", "/v1/status?pear=web2", None, 400),
        ("GET", "/v1/status?peer=../../etc/x", None, 400),
        ("GET", "/v1/wait?timeout=-1", None, 400),
        ("GET", "/v1/wait?timeout=nan", None, 400),
        ("GET", "/v1/wait?timeout=601", None, 400),
        ("GET", "/v1/wait?timeout=0&gone=perhaps", None, 400),
        ("POST", "/v1/reload", b"{", 400),
        ("POST", "/v1/reload", b'{"files": [1]}', 400),
        ("POST", "/v1/reload", b'{"everything": true}', 400),
        ("POST", "/v1/peer-command", b'{"command": "explode", "peers": ["web2"]}', 400),
        ("POST", "/v1/peer-command", b'{"command": "up", "peers": ["../web2"]}', 400),
        ("POST", "/v1/peer-command", b'{"command": "up", "peers": ["web2"], "wait": -1}', 400),
        ("POST", "/v1/peer-command", b"[]", 400),
    ],
)
def test_bad_requests_are_refused_with_a_reason(
    server: ServerThread, method: str, address: str, body: bytes | None, status: int
) -> None:
    code, text = ask(server, method, address, body)
    assert code == status
    assert b'"error":"' in text
    assert server.service.reloads == []
    assert server.service.commands == []


def test_a_bug_in_the_service_is_no_traceback_for_the_caller(server: ServerThread) -> None:
    server.service.failing = True
    code, text = ask(server, "GET", "/v1/status")
    assert code == 500
    assert b"internal error" in text
    assert b"secret" not in text
    server.service.failing = False
    assert ask(server, "GET", "/v1/health")[0] == 200


def test_metrics_and_health(server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"))
    code, text = ask(server, "GET", "/metrics")
    assert code == 200
    assert b'swanmesh_peer_up{peer="web2"} 1.0' in text
    assert ask(server, "GET", "/v1/health") == (200, b'{"status":"ok"}')


def test_events_begin_with_a_heartbeat_and_lose_nothing_after_it(server: ServerThread) -> None:
    stream = Client(server.socket).events()
    assert next(stream).kind == "heartbeat"
    server.call(server.service.emit, MeshEvent(kind="peer-up", time=1.0, peer="web2", reason="up"))
    record = next(record for record in stream if record.kind != "heartbeat")
    assert (record.kind, record.peer) == ("peer-up", "web2")
    assert next(record for record in stream).kind == "heartbeat"
    stream.close()  # type: ignore[attr-defined]
    wait_until(lambda: not server.service.readers, 5, "the closed stream is forgotten")


def test_stop_ends_streams_and_waits_and_removes_the_socket(server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2", "down", "dead"))
    stream = Client(server.socket).events()
    next(stream)
    refusals: list[str] = []

    def wait() -> None:
        try:
            Client(server.socket).wait(["web2"], 60)
        except (RequestRefused, ServiceUnreachable) as refused:
            refusals.append(str(refused))

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: server.server._followers.total() == 2, 5, "both follow")
    server.call(server.service.emit, MeshEvent(kind="stopping", time=1.0))
    server.stop()
    waiter.join(5)
    assert not waiter.is_alive()
    assert "stopping" in refusals[0]
    assert "stopping" in [record.kind for record in stream]
    assert not server.socket.exists()


def test_a_wait_ends_when_its_caller_goes_away(server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2", "down", "dead"))
    connection = _UnixConnection(server.socket, 10)
    connection.request("GET", "/v1/wait?timeout=500")
    wait_until(lambda: server.server._followers.total() == 1, 5, "the wait is under way")
    connection.close()
    wait_until(lambda: server.server._followers.total() == 0, 5, "the wait is given up")


def test_client_says_that_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnreachable, match="is the service running"):
        Client(tmp_path / "control.sock").status()
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(ServiceUnreachable, match="nobody listens"):
        Client(plain).status()


def test_client_gives_up_on_a_service_that_hangs(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "control.sock"))
        silent.listen()
        with pytest.raises(ServiceTimeout):
            Client(tmp_path / "control.sock", timeout=0.2).status()


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b"HTTP/1.1 500 x\r\n\r\n"],
)
def test_client_survives_whatever_answers(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as strange:
        strange.bind(str(tmp_path / "control.sock"))
        strange.listen()

        def reply() -> None:
            other, _ = strange.accept()
            with other:
                other.recv(65536)
                other.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises((ServiceUnreachable, RequestRefused)):
            Client(tmp_path / "control.sock", timeout=5).status()
        thread.join(5)


def test_many_callers_at_once(server: ServerThread) -> None:
    server.service.put(*(peer_status(f"web{number}", "203.0.113.2") for number in range(500)))
    sizes: list[int] = []

    def call() -> None:
        sizes.extend(len(Client(server.socket).status().peers) for _ in range(10))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sizes == [500] * 80


def test_one_connection_carries_one_request(server: ServerThread) -> None:
    connection = _UnixConnection(server.socket, 10)
    connection.request("GET", "/v1/health")
    response = connection.getresponse()
    assert response.getheader("Connection") == "close"
    assert isinstance(response, http.client.HTTPResponse)
    connection.close()


def test_client_waits_for_a_full_backlog_and_then_says_that_it_is_busy(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as first:
        full.bind(str(tmp_path / "control.sock"))
        full.listen(0)
        first.connect(str(tmp_path / "control.sock"))
        with pytest.raises(ServiceUnreachable, match="busy"):
            Client(tmp_path / "control.sock", timeout=1).status()
