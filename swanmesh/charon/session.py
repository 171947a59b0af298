"""One VICI session: frames on a Unix socket, replies matched to requests, events handed on.

The transport is asyncio's, without threads, so that a charon that hangs stops nobody. charon answers the
requests of one connection strictly in the order they came (strongSwan 5.9.8, plugins/vici/vici_socket.c:482),
so waiting requests are a queue and a reply belongs to its head. Whatever breaks that order ends the session:
it is never used out of step.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vici.protocol import Packet

from swanmesh.charon.codec import MAX_FRAME, Section, decode, encode
from swanmesh.charon.endpoint import open_socket
from swanmesh.charon.errors import (
    CharonLost,
    CommandFailed,
    MessageTooLarge,
    UnknownEvent,
    UnsupportedCommand,
)
from swanmesh.charon.watchdog import Pulse, Watchdog

_HEADER = struct.Struct("!I")
_REPLY, _REST = "reply", "rest of a frame"
_BREATH = 0.01
"""Seconds that a session for events leaves charon unread after reading twice within them."""
_REPLIES = frozenset({Packet.CMD_RESPONSE, Packet.CMD_UNKNOWN, Packet.EVENT_CONFIRM, Packet.EVENT_UNKNOWN})


@dataclass(slots=True)
class _Waiting:
    """A request under way."""

    what: str
    answers: tuple[int, int]
    """Packet types that answer it: the good one and the one that says unknown."""
    reply: asyncio.Future[tuple[int, Section]]
    timeout: float
    stream: str = ""
    on_item: Callable[[bytes], None] | None = None


class Session(asyncio.Protocol):
    """A connection to charon that several requests may use at once.

    `on_event(name, payload)` gets each registered event, undecoded. `on_lost(reason)` is called exactly once
    when the session is lost, and not at all when it is closed from this end. Sessions with one charon share
    its `pulse`: an answer may take longer while others, or events, still come.
    """

    def __init__(
        self,
        *,
        timeout: float,
        pulse: Pulse | None = None,
        on_event: Callable[[str, bytes], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        self.timeout = timeout
        self.requests = 0
        """Packets sent: commands and event registrations."""
        self.dropped = 0
        """Events and streamed items nobody wanted or nobody could decode."""
        self._on_event = on_event
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiting: deque[_Waiting] = deque()
        self._lost: str | None = None
        self._pulse = pulse or Pulse()
        self._watchdog = Watchdog(self._lose, self._pulse)
        self._read_at = -_BREATH

    @classmethod
    async def connect(
        cls,
        path: Path,
        *,
        timeout: float,
        pulse: Pulse | None = None,
        on_event: Callable[[str, bytes], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> Session:
        """A session with the charon that listens at `path`; CharonLost says in words why there is none."""
        sock = await open_socket(path, timeout)
        loop = asyncio.get_running_loop()
        try:
            _, session = await loop.create_unix_connection(
                lambda: cls(timeout=timeout, pulse=pulse, on_event=on_event, on_lost=on_lost), sock=sock
            )
        except BaseException:
            sock.close()
            raise
        return session

    # Asking.

    async def request(
        self, command: str, message: Mapping[str, Any] | bytes = b"", *, timeout: float | None = None
    ) -> Section:
        """charon's reply to `command`. `message` may be encoded already.

        Raises CommandFailed when charon says `success = no`, UnsupportedCommand when it does not know the
        command, MessageTooLarge before anything is sent, CharonLost when no reply will come.
        """
        return await self._command(command, message, timeout)

    async def stream(
        self,
        command: str,
        event: str,
        on_item: Callable[[Section], None],
        message: Mapping[str, Any] | bytes = b"",
        *,
        timeout: float | None = None,
    ) -> Section:
        """Like `request`, for a command that sends its results as events named `event` before its reply.

        The event must be registered on this session. charon sends these events to the asking connection
        alone (vici_dispatcher.c, raise_event with an id), so the registration can stand for the session's
        whole life and two such commands may overlap: what comes belongs to the request at the head.
        Each item counts as a sign of life. An item that cannot be decoded is counted and left out.
        """

        def receive(payload: bytes) -> None:
            try:
                section = decode(payload)
            except ValueError:
                self.dropped += 1
            else:
                on_item(section)

        return await self._command(command, message, timeout, event, receive)

    async def register(self, event: str) -> None:
        """Ask for an event; UnknownEvent when this charon has none of that name."""
        answers = (Packet.EVENT_CONFIRM, Packet.EVENT_UNKNOWN)
        kind, _ = await self._ask(Packet.register_event(event), f"registration of {event}", answers)
        if kind == Packet.EVENT_UNKNOWN:
            raise UnknownEvent(event)

    def close(self, reason: str = "closed at this end") -> None:
        """End the session from this end; what waits raises CharonLost(reason). Harmless when repeated."""
        self._on_lost = None
        self._lose(reason)

    async def _command(
        self,
        command: str,
        message: Mapping[str, Any] | bytes,
        timeout: float | None,
        stream: str = "",
        on_item: Callable[[bytes], None] | None = None,
    ) -> Section:
        payload = message if isinstance(message, bytes) else encode(command, message)
        packet = Packet.request(command, payload)
        answers = (Packet.CMD_RESPONSE, Packet.CMD_UNKNOWN)
        kind, reply = await self._ask(
            packet, command, answers, timeout=timeout, stream=stream, on_item=on_item
        )
        if kind == Packet.CMD_UNKNOWN:
            raise UnsupportedCommand(command)
        if reply.get("success") == b"no":
            errmsg = reply.get("errmsg", b"")
            raise CommandFailed(command, errmsg.decode(errors="replace") if isinstance(errmsg, bytes) else "")
        return reply

    async def _ask(
        self,
        packet: bytes,
        what: str,
        answers: tuple[int, int],
        *,
        timeout: float | None = None,
        stream: str = "",
        on_item: Callable[[bytes], None] | None = None,
    ) -> tuple[int, Section]:
        if len(packet) > MAX_FRAME:
            raise MessageTooLarge(what, f"{len(packet)} bytes, charon takes {MAX_FRAME} at most")
        if self._lost is not None or self._transport is None:
            raise CharonLost(self._lost or "not connected")
        waiting = _Waiting(
            what, answers, self._loop.create_future(), timeout or self.timeout, stream, on_item
        )
        self._waiting.append(waiting)
        self.requests += 1
        self._transport.write(_HEADER.pack(len(packet)) + packet)
        if len(self._waiting) == 1:
            self._expect_reply()
        return await waiting.reply

    # Hearing: the callbacks of asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - tells mypy what asyncio promises
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pulse.seen = self._loop.time()
        self._buffer += data
        buffer, start = self._buffer, 0
        while self._lost is None and len(buffer) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(buffer, start)
            if not 0 < length <= MAX_FRAME:
                self._lose(f"charon announced a message of {length} bytes")
                return
            end = start + _HEADER.size + length
            if len(buffer) < end:
                break
            self._frame(bytes(buffer[start + _HEADER.size : end]))
            start = end
        del buffer[:start]
        if self._lost is None:
            self._expect_rest(complete=start > 0)
            self._breathe()

    def connection_lost(self, exc: Exception | None) -> None:
        words = f"the connection to charon broke: {exc}" if exc else "charon closed the connection"
        self._lose(words)

    def _frame(self, frame: bytes) -> None:
        kind = frame[0]
        if kind == Packet.EVENT:
            self._event(frame)
        elif kind in _REPLIES:
            self._reply(kind, frame[1:])
        else:
            self._lose(f"charon sent a packet of unknown type {kind}")

    def _reply(self, kind: int, body: bytes) -> None:
        if not self._waiting:
            self._lose(f"charon sent a reply (type {kind}) to no request")
            return
        head = self._waiting[0]
        if kind not in head.answers:
            self._lose(f"charon answered {head.what} with a packet of type {kind}")
            return
        try:
            section = decode(body)
        except ValueError as error:
            self._lose(f"charon's reply to {head.what} cannot be read: {error}")
            return
        self._waiting.popleft()
        self._expect_reply()
        if not head.reply.done():
            head.reply.set_result((kind, section))

    def _event(self, frame: bytes) -> None:
        end = 2 + frame[1] if len(frame) > 1 else 2
        if len(frame) < end:
            self._lose("charon sent an event with a broken name")
            return
        name, payload = frame[2:end].decode(errors="replace"), frame[end:]
        head = self._waiting[0] if self._waiting else None
        if head is not None and head.stream == name and head.on_item is not None:
            self._expect_reply()
            if not head.reply.done():
                head.on_item(payload)
        elif self._on_event is not None:
            self._on_event(name, payload)
        else:
            self.dropped += 1

    # Waiting no longer than is bearable, and ending.

    def _expect_reply(self) -> None:
        """The head of the queue has its whole time from now on."""
        if self._waiting:
            head = self._waiting[0]
            self._watchdog.expect(
                _REPLY, head.timeout, f"charon did not answer {head.what} within", patient=True
            )
        else:
            self._watchdog.forget(_REPLY)

    def _expect_rest(self, *, complete: bool) -> None:
        """Half a frame must become whole in time, however slowly its bytes trickle in."""
        if not self._buffer:
            self._watchdog.forget(_REST)
        elif complete or not self._watchdog.expecting(_REST):
            self._watchdog.expect(_REST, self.timeout, "charon sent half a message and no more for")

    def _breathe(self) -> None:
        """Under a stream of events, wake up for many of them at once: most cost less than the waking."""
        if self._transport is None or self._lost is not None or self._on_event is None:
            return
        now = self._loop.time()
        if now - self._read_at < _BREATH:
            self._transport.pause_reading()
            self._loop.call_later(_BREATH, self._resume)
        self._read_at = now

    def _resume(self) -> None:
        if self._transport is not None and self._lost is None:
            self._read_at = self._loop.time()
            self._transport.resume_reading()

    def _lose(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        self._watchdog.stop()
        if self._transport is not None:
            self._transport.abort()
        self._buffer.clear()
        for waiting in self._waiting:
            if not waiting.reply.done():
                waiting.reply.set_exception(CharonLost(reason))
                waiting.reply.exception()  # seen: nobody may be left to await it
        self._waiting.clear()
        if self._on_lost is not None:
            self._on_lost(reason)
