"""One VICI session: frames on a Unix socket, replies matched to requests, events handed on.

The transport is asyncio's, without threads, so that a charon that hangs stops nobody. charon answers the
requests of one connection strictly in the order they came (strongSwan 5.9.8, plugins/vici/vici_socket.c:482),
so waiting requests are a queue and a reply belongs to its head. Whatever breaks that order ends the session:
it is never used out of step.
"""

from __future__ import annotations

import asyncio
import contextlib
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

_HEADER = struct.Struct("!I")
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
    when the session is lost, and not at all when it is closed from this end.
    """

    def __init__(
        self,
        *,
        timeout: float,
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
        self._timer: asyncio.TimerHandle | None = None
        self._reply_due: float | None = None
        self._frame_due: float | None = None

    @classmethod
    async def connect(
        cls,
        path: Path,
        *,
        timeout: float,
        on_event: Callable[[str, bytes], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> Session:
        """A session with the charon that listens at `path`; CharonLost says in words why there is none."""
        sock = await open_socket(path, timeout)
        loop = asyncio.get_running_loop()
        try:
            _, session = await loop.create_unix_connection(
                lambda: cls(timeout=timeout, on_event=on_event, on_lost=on_lost), sock=sock
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
        self._expect_rest(complete=start > 0)

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
        self._reply_due = self._loop.time() + self._waiting[0].timeout if self._waiting else None
        self._arm()

    def _expect_rest(self, *, complete: bool) -> None:
        """Half a frame must become whole in time, however slowly its bytes trickle in."""
        if not self._buffer or self._lost is not None:
            self._frame_due = None
        elif self._frame_due is None or complete:
            self._frame_due = self._loop.time() + self.timeout
        self._arm()

    def _arm(self) -> None:
        """One timer serves both. It is put forward only when it fires: each streamed item would move it."""
        dues = [due for due in (self._reply_due, self._frame_due) if due is not None]
        if not dues or self._lost is not None:
            return
        due = min(dues)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._frame_due is not None and now >= self._frame_due:
            self._lose(f"charon sent half a message and no more for {self.timeout:g} s")
        elif self._reply_due is not None and now >= self._reply_due:
            head = self._waiting[0]
            self._lose(f"charon did not answer {head.what} within {head.timeout:g} s")
        else:
            self._arm()

    def _lose(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        self._buffer.clear()
        for waiting in self._waiting:
            if not waiting.reply.done():
                waiting.reply.set_exception(CharonLost(reason))
                with contextlib.suppress(CharonLost):
                    waiting.reply.exception()  # seen: nobody may be left to await it
        self._waiting.clear()
        if self._on_lost is not None:
            self._on_lost(reason)
