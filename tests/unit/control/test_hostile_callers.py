"""Callers that are slow, silent, greedy or not allowed: they get little and hurt nobody."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.waiting import wait_until
from swanmesh.control.client import Client, RequestRefused
from swanmesh.control.gate import Limits
from swanmesh.core.events import MeshEvent
from tests.unit.control.plain_service import ServerThread, peer_status, serving

LIMITS = Limits(
    connections=20,
    followers=3,
    reserved=1,
    followers_each=2,
    request_time=0.8,
    reply_time=0.8,
    stalled=0.5,
    heartbeat=0.1,
)
NOBODY = 65534


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerThread]:
    with serving(tmp_path / "control.sock", limits=LIMITS) as thread:
        yield thread


def connect(server: ServerThread) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    # Blocking: with a time limit, connect fails at once while the backlog is full.
    sock.connect(str(server.socket))
    sock.settimeout(10)
    return sock


def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side closes or resets."""
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def answers(server: ServerThread) -> bool:
    return Client(server.socket, timeout=5).status().schema == 1


def test_a_silent_caller_is_dropped_in_time(server: ServerThread) -> None:
    started = time.monotonic()
    with connect(server) as sock:
        assert read_all(sock) == b""
    assert time.monotonic() - started < 5


def test_headers_that_trickle_are_cut_off(server: ServerThread) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /v1/status HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            for number in range(2000):
                sock.sendall(f"X-{number}: y\r\n".encode())
                # A line now and then, until the server hangs up.
                select.select([sock], [], [], 0.005)
        assert answers(server)


def test_a_body_that_does_not_come_is_408(server: ServerThread) -> None:
    with connect(server) as sock:
        sock.sendall(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert b" 408 " in read_all(sock).splitlines()[0]
    assert server.service.reloads == []


def test_ten_megabytes_are_refused(server: ServerThread) -> None:
    body = b'{"files": ["' + b"x" * 10_000_000 + b'"]}'
    with connect(server) as sock:
        try:
            sock.sendall(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            sock.sendall(body)
        except ConnectionError:
            pass
        assert b" 413 " in read_all(sock).splitlines()[0]
    assert server.service.reloads == []
    assert answers(server)


def test_endless_headers_are_cut_off(server: ServerThread) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                sock.sendall(b"X-Y: " + b"z" * 4000 + b"\r\n")
    assert answers(server)


@pytest.mark.parametrize("noise", [b"\x00" * 5000, b"\xff\xfe\r\n\r\n", b"GET\r\n\r\n", b"A" * 100_000])
def test_noise_is_answered_or_dropped_without_a_traceback(server: ServerThread, noise: bytes) -> None:
    with connect(server) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(noise)
        assert b"Traceback" not in read_all(sock)
    assert answers(server)


def test_idle_connections_give_way_to_one_that_asks(server: ServerThread) -> None:
    idle = [connect(server) for _ in range(200)]
    try:
        assert answers(server)
        assert len(server.server._keeper._open) <= LIMITS.connections  # type: ignore[union-attr]
    finally:
        for sock in idle:
            sock.close()


def test_half_closed_connections_are_forgotten(server: ServerThread) -> None:
    halves = [connect(server) for _ in range(10)]
    for sock in halves:
        sock.sendall(b"GET /v1/wait?timeout=600 HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
    for sock in halves:
        read_all(sock)
        sock.close()
    wait_until(lambda: server.server._followers.total() == 0, 5, "their waits are given up")
    assert answers(server)


def test_long_requests_leave_room_for_short_ones(server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2", "down", "dead"))
    waits = [connect(server) for _ in range(LIMITS.followers)]
    for sock in waits:
        sock.sendall(b"GET /v1/wait?timeout=600 HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: server.server._followers.total() == LIMITS.followers, 5, "all wait")
    with connect(server) as sock:
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 503 " in read_all(sock).splitlines()[0]
    assert answers(server)
    for sock in waits:
        sock.close()


def test_a_reader_that_does_not_read_is_dropped(server: ServerThread) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: server.service.readers, 5, "the stream stands")

        def flood() -> bool:
            record = MeshEvent(kind="action", time=1.0, reason="x" * 10_000)
            server.call(server.service.emit, record)
            return not server.service.readers

        wait_until(flood, 20, "the reader is dropped")
    assert answers(server)


def test_an_answer_nobody_reads_is_given_up(server: ServerThread) -> None:
    server.service.put(*(peer_status(f"web{number}", "203.0.113.2") for number in range(3000)))
    with connect(server) as sock:
        sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        keeper = server.server._keeper
        assert keeper is not None
        wait_until(lambda: not keeper._open, 10, "the connection is dropped")
    assert answers(server)


def as_nobody(server: ServerThread, groups: list[int]) -> bytes:
    """What a process of uid nobody gets; the socket's mode is opened so that only the check remains."""
    server.socket.chmod(0o666)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(server.socket))
            sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
            os.write(writer, read_all(sock)[:2000])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")


@needs_root
def test_another_user_is_refused(tmp_path: Path) -> None:
    _let_through(tmp_path)
    with serving(tmp_path / "control.sock", limits=LIMITS) as server:
        assert b" 403 " in as_nobody(server, []).splitlines()[0]
        assert answers(server)


@needs_root
def test_a_member_of_the_group_is_served(tmp_path: Path) -> None:
    _let_through(tmp_path)
    with serving(tmp_path / "control.sock", group="daemon", limits=LIMITS) as server:
        assert server.socket.stat().st_gid == 1
        assert b" 200 " in as_nobody(server, [1]).splitlines()[0]
        assert b" 403 " in as_nobody(server, [2, *range(100, 300)]).splitlines()[0]
        assert b" 200 " in as_nobody(server, [1, *range(100, 300)]).splitlines()[0]


def _let_through(path: Path) -> None:
    """pytest's own folders are closed to other users."""
    for folder in (path, *path.parents):
        if folder == Path("/tmp"):  # noqa: S108 - where pytest puts its folders
            break
        folder.chmod(folder.stat().st_mode | 0o011)


def test_one_too_many_is_told_so(tmp_path: Path) -> None:
    limits = Limits(connections=5, request_time=20)
    with serving(tmp_path / "control.sock", limits=limits) as server:
        slow = [connect(server) for _ in range(limits.connections)]
        for sock in slow:
            sock.sendall(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        keeper = server.server._keeper
        assert keeper is not None
        wait_until(lambda: len(keeper._open) == 5 and not keeper._silent, 5, "all have asked")
        with pytest.raises(RequestRefused, match="too many connections at a time") as refused:
            Client(server.socket, timeout=5).status()
        assert refused.value.status == 503
        for sock in slow:
            sock.close()
        wait_until(lambda: not keeper._open, 5, "they are forgotten")
        assert answers(server)


@contextlib.contextmanager
def member(
    server: ServerThread, uid: int, request: bytes, count: int, answered: int
) -> Iterator[list[bytes]]:
    """A process of a member of the socket's group that holds `count` requests open; yields the status codes
    of the first `answered` ones that are answered."""
    reader, writer = os.pipe()
    held, release = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(release)
            os.setgroups([1])
            os.setgid(NOBODY)
            os.setuid(uid)
            socks = [socket.socket(socket.AF_UNIX) for _ in range(count)]
            for sock in socks:
                sock.connect(str(server.socket))
                with contextlib.suppress(BrokenPipeError):
                    sock.sendall(request)
            codes: list[bytes] = []
            while len(codes) < answered:
                for sock in select.select(socks, [], [])[0]:
                    codes.append(sock.recv(65536).split(b" ")[1])
                    socks.remove(sock)
            os.write(writer, b" ".join(codes) + b".")
            os.read(held, 1)
        except BaseException as error:
            os.write(2, repr(error).encode())
        finally:
            os._exit(0)
    os.close(held)
    os.close(writer)
    try:
        text = b""
        while part := os.read(reader, 1000):
            text += part
            if text.endswith(b"."):
                break
        yield text.removesuffix(b".").split()
    finally:
        os.close(release)
        os.close(reader)
        os.waitpid(child, 0)


WAIT = b"GET /v1/wait?timeout=600 HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"


@needs_root
def test_members_of_the_group_cannot_take_every_long_request(tmp_path: Path) -> None:
    _let_through(tmp_path)
    limits = Limits(connections=40, followers=6, reserved=3, followers_each=2)
    with serving(tmp_path / "control.sock", group="daemon", limits=limits) as server:
        server.service.put(peer_status("web2", "203.0.113.2", "down", "dead"))
        client = Client(server.socket, timeout=5)
        with member(server, 1001, WAIT, 4, 2) as one:
            # Two each, and three of all members together.
            assert one == [b"503", b"503"]
            with member(server, 1002, WAIT, 2, 1) as another:
                assert another == [b"503"]
                assert client.wait(["web2"], 0.1).missing == {"web2": "dead"}


@needs_root
def test_members_of_the_group_cannot_take_every_connection(tmp_path: Path) -> None:
    _let_through(tmp_path)
    limits = Limits(connections=6, reserved=2, request_time=20)
    with (
        serving(tmp_path / "control.sock", group="daemon", limits=limits) as server,
        member(server, 1001, SLOW, 4, 0),
    ):
        keeper = server.server._keeper
        assert keeper is not None
        wait_until(lambda: len(keeper._open) == 4 and not keeper._silent, 5, "all have asked")
        with member(server, 1002, SLOW, 1, 1) as refused:
            assert refused == [b"503"]
        assert answers(server)
