"""The CLI's side of the control socket.

Over `http.client` rather than aiohttp: a command lives for milliseconds, and aiohttp takes longer to import
than most of them take to run.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from swanmesh.control.protocol import (
    Command,
    ConfirmReply,
    ConfirmRequest,
    ConfirmSubject,
    ErrorReply,
    HeldReply,
    PeerCommandReply,
    PeerCommandRequest,
    PlanReply,
    PolicyReply,
    ReloadReply,
    ReloadRequest,
    RenewReply,
    RenewRequest,
    WaitReply,
)
from swanmesh.control.reports import StatusReply
from swanmesh.core.events import MeshEvent

_Reply = TypeVar("_Reply")
_REPLY_LIMIT = 512 * 1024 * 1024
_LINE_LIMIT = 1024 * 1024
_ALLOWANCE = 15.0
"""Seconds that a wait's answer may come after the wait's own end."""
_SILENCE = 60.0
"""Seconds without even a heartbeat after which an event stream is given up; four of the server's."""
_PATIENCE = 2.0
"""Seconds without a byte of an answer after which a service that does not work on it counts as hanging."""
_FRESH = 1.0
"""Seconds that the service may take to look at charon before it answers."""
_WORKING = ("R", "D")
"""States of a process (proc(5)) that has something to do, or waits for its disk."""
_NAMES_AT_ONCE = 64
"""Peers that one address line carries: 64 names of 63 characters fit into the 8 KiB that a server reads."""


class ServiceUnreachable(Exception):
    """No service answers at the socket, or not to this user. `passing`: it may be about to start."""

    def __init__(self, socket: Path, reason: str, *, passing: bool = False) -> None:
        super().__init__(f"the service is not reachable at {socket}: {reason}")
        self.socket = socket
        self.reason = reason
        self.passing = passing


class ServiceTimeout(Exception):
    """The service took the request and did not answer in time. `passing`: it may be about to."""

    def __init__(self, socket: Path, why: str, *, passing: bool = True) -> None:
        message = f"the service at {socket} does not answer ({why})"
        super().__init__(f"{message}; look at: systemctl status swanmesh")
        self.passing = passing


class RequestRefused(Exception):
    """The service answered that it will not, or could not; the text says why. `status` is HTTP's code."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def invalid(self) -> bool:
        """Whether what was asked for made no sense, such as an unknown peer."""
        return self.status in (http.client.BAD_REQUEST, http.client.NOT_FOUND)


class _Stopped(TimeoutError):
    """By a signal: it does not go on by itself."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._limit = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # With a time limit of Python's, connect would fail at once while the service's backlog is full; the
        # kernel's own waits for room (unix_stream_connect in net/unix/af_unix.c).
        limit = struct.pack("ll", max(1, int(min(self._limit, _PATIENCE))), 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self.sock.connect(os.fspath(self._path))
        self.sock.settimeout(self._limit)

    def await_answer(self, patience: float) -> None:
        """Until its first byte. Raises TimeoutError, which says why: after `patience` seconds if the service
        does nothing meanwhile; one that works may be slow."""
        end = time.monotonic() + self._limit
        wait, before = min(patience, self._limit), self._service()
        while not select.select([self.sock], [], [], wait)[0]:
            pid, state, used = self._service()
            if state in ("T", "t"):
                raise _Stopped(f"its process {pid} is stopped")
            if time.monotonic() >= end:
                raise TimeoutError(f"nothing within {self._limit:.0f} s")
            if state not in _WORKING and (pid, state, used) == before:
                raise TimeoutError(f"its process {pid} does nothing")
            wait, before = 0.25, (pid, state, used)

    def _service(self) -> tuple[int, str, int]:
        """Process id, state of the main thread, and processor time that all threads have used, of who listens
        (unix(7), proc(5)); `?` if it cannot be told."""
        size = struct.calcsize("3i")
        pid, _, _ = struct.unpack("3i", self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return pid, fields[0], int(fields[11]) + int(fields[12])
        except (OSError, IndexError):
            return pid, "?", 0


class Client:
    """Asks the service at `socket`. Every method raises ServiceUnreachable, ServiceTimeout (nothing within
    `timeout` seconds, or within 2 s from a service that does nothing) or RequestRefused."""

    def __init__(self, socket: Path, *, timeout: float = 30.0) -> None:
        self.socket = socket
        self._timeout = timeout

    def status_json(self, peers: Sequence[str] = (), *, fresh: bool = False) -> bytes:
        """The status as it came, with whatever fields a newer service adds. `fresh`: have charon looked at
        first, if that is quickly done."""
        address = _address("/v1/status", peer=peers, fresh=["true"] if fresh else [])
        return self._bytes("GET", address, patience=_PATIENCE + (_FRESH if fresh else 0.0))

    def status(self, peers: Sequence[str] = (), *, fresh: bool = False) -> StatusReply:
        reply = self._decode(self.status_json(peers[:_NAMES_AT_ONCE], fresh=fresh), StatusReply)
        for start in range(_NAMES_AT_ONCE, len(peers), _NAMES_AT_ONCE):
            some = self.status_json(peers[start : start + _NAMES_AT_ONCE])
            reply.peers += self._decode(some, StatusReply).peers
        return reply

    def plan(self) -> PlanReply:
        return self._decode(self._bytes("GET", "/v1/plan"), PlanReply)

    def policy(self, peers: Sequence[str] = (), *, settle: float = 0.0) -> PolicyReply:
        """How the peers (none named: all) stand on the way to `require`, after up to `settle` seconds for
        charon to take their policies."""
        deadline = time.monotonic() + settle
        reply: PolicyReply | None = None
        for start in range(0, max(1, len(peers)), _NAMES_AT_ONCE):
            left = max(0.0, deadline - time.monotonic())
            some = peers[start : start + _NAMES_AT_ONCE]
            limit = left + _ALLOWANCE
            address = _address("/v1/policy", peer=some, settle=[f"{left:.3f}"])
            answer = self._bytes("GET", address, timeout=limit, patience=left + _PATIENCE)
            part = self._decode(answer, PolicyReply)
            if reply is None:
                reply = part
            else:
                reply.peers += part.peers
        assert reply is not None  # noqa: S101 - the loop runs once at least
        return reply

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

    def confirm(self, subject: ConfirmSubject) -> ConfirmReply:
        """Let happen what is held."""
        body = msgspec.json.encode(ConfirmRequest(subject=subject))
        return self._decode(self._bytes("POST", "/v1/confirm", body), ConfirmReply)

    def command(self, command: Command, peers: Sequence[str], *, wait: float = 0.0) -> PeerCommandReply:
        """Ask it of these peers, and wait up to `wait` seconds for it to be so."""
        body = msgspec.json.encode(PeerCommandRequest(command=command, peers=list(peers), wait=wait))
        limit = wait + _ALLOWANCE
        reply = self._bytes("POST", "/v1/peer-command", body, timeout=limit, patience=wait + _PATIENCE)
        return self._decode(reply, PeerCommandReply)

    def renew(self, *, now: bool, wait: float) -> RenewReply:
        """Have the host's certificate renewed if it is due, or `now`; wait up to `wait` seconds for it."""
        body = msgspec.json.encode(RenewRequest(now=now, wait=wait))
        limit = wait + _ALLOWANCE
        reply = self._bytes("POST", "/v1/renew", body, timeout=limit, patience=limit)
        return self._decode(reply, RenewReply)

    def wait(self, peers: Sequence[str], timeout: float, *, gone: bool = False) -> WaitReply:
        """Until the peers (none named: all) are up or, with `gone`, away; `missing` names those that are not
        after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        # A service that hangs is told at once, and not when the time is over.
        self.health()
        missing: dict[str, str] = {}
        for start in range(0, max(1, len(peers)), _NAMES_AT_ONCE):
            some = peers[start : start + _NAMES_AT_ONCE]
            left = max(0.0, deadline - time.monotonic())
            address = _address("/v1/wait", peer=some, timeout=[f"{left:.3f}"], gone=["true"] if gone else [])
            limit = left + _ALLOWANCE
            answer = self._bytes("GET", address, timeout=limit, patience=limit)
            missing.update(self._decode(answer, WaitReply).missing)
        return WaitReply(missing=missing)

    def events(self) -> Iterator[MeshEvent]:
        """Everything from now on, heartbeats included; ends when the service ends the stream."""
        with self._asking(_SILENCE) as connection:
            response = self._answer(connection, "GET", "/v1/events", None)
            while line := response.readline(_LINE_LIMIT):
                yield self._decode(line, MeshEvent)

    def _bytes(
        self,
        method: str,
        address: str,
        body: bytes | None = None,
        *,
        timeout: float | None = None,
        patience: float = _PATIENCE,
    ) -> bytes:
        with self._asking(self._timeout if timeout is None else timeout) as connection:
            return self._answer(connection, method, address, body, patience).read(_REPLY_LIMIT)

    @contextlib.contextmanager
    def _asking(self, limit: float) -> Iterator[_UnixConnection]:
        """A connection whose failures are told in words."""
        connection = _UnixConnection(self.socket, limit)
        try:
            yield connection
        except TimeoutError as error:
            passing = not isinstance(error, _Stopped)
            raise ServiceTimeout(self.socket, str(error), passing=passing) from None
        except (OSError, http.client.HTTPException) as error:
            reason, passing = _reason(error)
            raise ServiceUnreachable(self.socket, reason, passing=passing) from None
        finally:
            connection.close()

    def _answer(
        self,
        connection: _UnixConnection,
        method: str,
        address: str,
        body: bytes | None,
        patience: float = _PATIENCE,
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, address, body, headers)
        except BrokenPipeError:
            # Refused before the request was read; why stands in what was sent.
            if connection.sock is None:
                raise
        connection.await_answer(patience)
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
        if response.status == http.client.GONE:
            return ServiceUnreachable(self.socket, message, passing=True)
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


_REASONS: tuple[tuple[type[Exception], str, bool], ...] = (
    (FileNotFoundError, "there is no such socket (is the service running?)", True),
    (ConnectionRefusedError, "nobody listens there (is the service running?)", True),
    (PermissionError, "permission denied; run as root or as a member of the socket's group", False),
    (BlockingIOError, "it is busy; try again", True),
    # http.client.RemoteDisconnected among them.
    (ConnectionError, "it closed the connection without an answer", True),
    (http.client.HTTPException, "what answers there does not speak HTTP", False),
)


def _reason(error: Exception) -> tuple[str, bool]:
    """In words, and whether it may pass by itself."""
    for kind, reason, passing in _REASONS:
        if isinstance(error, kind):
            return reason, passing
    return str(error), False
