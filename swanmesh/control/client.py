"""The CLI's side of the control socket.

Over `http.client` rather than aiohttp: a command lives for milliseconds, and aiohttp takes longer to import
than most of them take to run.
"""

from __future__ import annotations

import http.client
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlencode

import msgspec

from swanmesh.control.protocol import (
    ConfirmReply,
    ConfirmRequest,
    ErrorReply,
    EventRecord,
    HeldReply,
    PeerCommandReply,
    PeerCommandRequest,
    PlanReply,
    ReloadReply,
    ReloadRequest,
    StatusReply,
    WaitReply,
)

_Reply = TypeVar("_Reply")
_REPLY_LIMIT = 512 * 1024 * 1024
_LINE_LIMIT = 1024 * 1024
_ALLOWANCE = 15.0
"""Seconds that a wait's answer may come after the wait's own end."""
_SILENCE = 60.0
"""Seconds without even a heartbeat after which an event stream is given up; four of the server's."""
_NAMES_AT_ONCE = 64
"""Peers that one address line carries: 64 names of 63 characters fit into the 8 KiB that a server reads."""


class ServiceUnreachable(Exception):
    """No service answers at the socket, or not to this user."""

    def __init__(self, socket: Path, reason: str) -> None:
        super().__init__(f"the service is not reachable at {socket}: {reason}")
        self.socket = socket
        self.reason = reason


class ServiceTimeout(Exception):
    """The service took the request and did not answer in time."""

    def __init__(self, socket: Path, seconds: float) -> None:
        super().__init__(f"the service at {socket} did not answer within {seconds:.0f} s")


class RequestRefused(Exception):
    """The service answered that it will not, or could not; the text says why. `status` is HTTP's code."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._limit = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # With a time limit of Python's, connect would fail at once while the service's backlog is full; the
        # kernel's own waits for room (unix_stream_connect in net/unix/af_unix.c).
        limit = struct.pack("ll", max(1, int(self._limit)), 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self.sock.connect(os.fspath(self._path))
        self.sock.settimeout(self._limit)


class Client:
    """Asks the service at `socket`. Every method raises ServiceUnreachable, ServiceTimeout (nothing within
    `timeout` seconds) or RequestRefused."""

    def __init__(self, socket: Path, *, timeout: float = 30.0) -> None:
        self.socket = socket
        self._timeout = timeout

    def status_json(self, peers: Sequence[str] = ()) -> bytes:
        """The status as it came, with whatever fields a newer service adds."""
        return self._bytes("GET", _address("/v1/status", peer=peers))

    def status(self, peers: Sequence[str] = ()) -> StatusReply:
        if len(peers) > _NAMES_AT_ONCE:
            reply = self._decode(self.status_json(), StatusReply)
            wanted = set(peers)
            reply.peers = [peer for peer in reply.peers if peer.name in wanted]
            return reply
        return self._decode(self.status_json(peers), StatusReply)

    def plan(self) -> PlanReply:
        return self._decode(self._bytes("GET", "/v1/plan"), PlanReply)

    def health(self) -> None:
        """Returns if the service answers at all."""
        self._bytes("GET", "/v1/health")

    def metrics(self) -> bytes:
        return self._bytes("GET", "/metrics")

    def reload(self, files: Sequence[Path] | None = None, *, removed: bool = False) -> ReloadReply:
        """Have the service read these peer files again, or everything. `removed`: those of them that are gone
        were removed on purpose."""
        names = None if files is None else [os.fspath(file) for file in files]
        body = msgspec.json.encode(ReloadRequest(files=names, removed=removed))
        return self._decode(self._bytes("POST", "/v1/reload", body), ReloadReply)

    def held(self) -> HeldReply:
        """What the service holds back until it is confirmed."""
        return self._decode(self._bytes("GET", "/v1/confirm"), HeldReply)

    def confirm(self, subject: Literal["removal"]) -> ConfirmReply:
        """Let happen what is held."""
        body = msgspec.json.encode(ConfirmRequest(subject=subject))
        return self._decode(self._bytes("POST", "/v1/confirm", body), ConfirmReply)

    def command(self, command: Literal["up", "down", "rekey"], peer: str) -> PeerCommandReply:
        body = msgspec.json.encode(PeerCommandRequest(command=command, peer=peer))
        return self._decode(self._bytes("POST", "/v1/peer-command", body), PeerCommandReply)

    def wait(self, peers: Sequence[str], timeout: float, *, gone: bool = False) -> WaitReply:
        """Until the peers (none named: all) are up or, with `gone`, away; `missing` names those that are not
        after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        missing: dict[str, str] = {}
        for start in range(0, max(1, len(peers)), _NAMES_AT_ONCE):
            some = peers[start : start + _NAMES_AT_ONCE]
            left = max(0.0, deadline - time.monotonic())
            address = _address("/v1/wait", peer=some, timeout=[f"{left:.3f}"], gone=["true"] if gone else [])
            answer = self._bytes("GET", address, timeout=left + _ALLOWANCE)
            missing.update(self._decode(answer, WaitReply).missing)
        return WaitReply(missing=missing)

    def events(self) -> Iterator[EventRecord]:
        """Everything from now on, heartbeats included; ends when the service ends the stream."""
        connection = _UnixConnection(self.socket, _SILENCE)
        try:
            response = self._answer(connection, "GET", "/v1/events", None, _SILENCE)
            while line := response.readline(_LINE_LIMIT):
                yield self._decode(line, EventRecord)
        except TimeoutError:
            raise ServiceTimeout(self.socket, _SILENCE) from None
        except (OSError, http.client.HTTPException) as error:
            raise ServiceUnreachable(self.socket, _reason(error)) from None
        finally:
            connection.close()

    def _bytes(
        self, method: str, address: str, body: bytes | None = None, *, timeout: float | None = None
    ) -> bytes:
        limit = self._timeout if timeout is None else timeout
        connection = _UnixConnection(self.socket, limit)
        try:
            reply = self._answer(connection, method, address, body, limit).read(_REPLY_LIMIT)
        except TimeoutError:
            raise ServiceTimeout(self.socket, limit) from None
        except (OSError, http.client.HTTPException) as error:
            raise ServiceUnreachable(self.socket, _reason(error)) from None
        finally:
            connection.close()
        return reply

    def _answer(
        self, connection: _UnixConnection, method: str, address: str, body: bytes | None, limit: float
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, address, body, headers)
        except BrokenPipeError:
            # Refused before the request was read; why stands in what was sent.
            if connection.sock is None:
                raise
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise self._refusal(response)
        return response

    def _refusal(self, response: http.client.HTTPResponse) -> Exception:
        text = response.read(_LINE_LIMIT)
        try:
            reply = msgspec.json.decode(text, type=ErrorReply)
        except msgspec.MsgspecError:
            reply = ErrorReply(error=f"answered {response.status} {response.reason}")
        message = f"{reply.error}; {reply.remedy}" if reply.remedy else reply.error
        if response.status == http.client.FORBIDDEN:
            return ServiceUnreachable(self.socket, message)
        return RequestRefused(message, response.status)

    def _decode(self, text: bytes, kind: type[_Reply]) -> _Reply:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.MsgspecError as error:
            message = f"the answer of the service at {self.socket} is not understood: {error}"
            raise RequestRefused(f"{message}; is it another version of swanmesh?") from None


def _address(path: str, **parameters: Sequence[str]) -> str:
    text = urlencode([(key, value) for key, values in parameters.items() for value in values])
    return f"{path}?{text}" if text else path


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (FileNotFoundError, "there is no such socket (is the service running?)"),
    (ConnectionRefusedError, "nobody listens there (is the service running?)"),
    (PermissionError, "permission denied; run as root or as a member of the socket's group"),
    (BlockingIOError, "it is busy; try again"),
    # http.client.RemoteDisconnected among them.
    (ConnectionError, "it closed the connection without an answer"),
    (http.client.HTTPException, "what answers there does not speak HTTP"),
)


def _reason(error: Exception) -> str:
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return str(error)
