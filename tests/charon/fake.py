"""A VICI server that speaks the wire protocol on a real Unix socket as charon does, faults included."""

from __future__ import annotations

import asyncio
import enum
import functools
import itertools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from vici.protocol import Packet

from tests.charon import wire
from tests.charon.daemon import Daemon

T = TypeVar("T")
_EVENTS = frozenset(
    [
        "log",
        "control-log",
        "list-sa",
        "list-policy",
        "list-conn",
        "list-cert",
        "list-authority",
        "ike-updown",
        "ike-rekey",
        "ike-update",
        "child-updown",
        "child-rekey",
    ]
)

# From Python 3.13 on, a server that closes takes its socket's file away, which a charon that dies does not.
_LEFT_BEHIND: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


def has_alert(version: str) -> bool:
    """Whether a charon of this version knows the event (plugins/vici/vici_query.c)."""
    return tuple(map(int, version.split("."))) >= (6, 0, 3)


class Fault(enum.Enum):
    """What goes wrong with the next request (that `fault_on` names, if it names one)."""

    HANG = "it is not answered before `patience` is set"
    HALF_FRAME = "half of the answer comes, and no more"
    TRICKLE = "the answer comes a byte at a time, never to its end"
    CLOSE = "the connection is closed instead of an answer"
    GARBAGE = "the answer is whole and holds nothing that can be read"
    OVERSIZE = "a length beyond what the protocol allows is announced"
    UNKNOWN_TYPE = "the answer is a packet of an unknown type"
    WRONG_TYPE = "the answer is one to another kind of question"
    TWICE = "it is answered twice: everything after is out of step"
    UNKNOWN_EVENT = "an event that nobody asked for comes before the answer"
    FLOOD = "ten thousand events come before the answer"


class FakeCharon(Daemon):
    """Use from one event loop: `await start()`, `await stop()`. What it holds may be changed at will."""

    def __init__(self, path: Path, *, version: str = "5.9.8") -> None:
        super().__init__()
        self.path = path
        self.version = version
        self.events = _EVENTS | ({"alert"} if has_alert(version) else frozenset())
        self.requests: list[tuple[str, dict[str, Any]]] = []
        """Every command with its message, as it came."""
        self.fault: Fault | None = None
        self.fault_on: str | None = None
        self.patience = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.StreamWriter, set[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; what an earlier life held is gone, as with the real one."""
        self.forget_everything()
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=1 << 20, **_LEFT_BEHIND)

    async def stop(self) -> None:
        """Close everything, leaving the socket file behind as a crash does."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*list(self._tasks), return_exceptions=True)

    def emit(self, name: str, message: dict[str, Any]) -> None:
        """Send an event to every client registered for it."""
        self.emit_raw(name, wire.serialize(message))

    def emit_raw(self, name: str, payload: bytes) -> None:
        """The same with a message that may be none."""
        for writer, registered in self._clients.items():
            if name in registered:
                writer.write(wire.raw_event(name, payload))

    def drop_listeners(self, event: str) -> None:
        """Close the connection of every client that is registered for an event."""
        for writer, registered in self._clients.items():
            if event in registered:
                writer.transport.abort()

    # The wire.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients[writer] = set()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                kind, name, payload = await wire.read_packet(reader)
                if kind == Packet.CMD_REQUEST:
                    await self._command(writer, name, payload)
                else:
                    self._registration(writer, kind, name)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            del self._clients[writer]
            writer.transport.abort()

    def _registration(self, writer: asyncio.StreamWriter, kind: int, name: str) -> None:
        registered = self._clients[writer]
        known = name in self.events if kind == Packet.EVENT_REGISTER else name in registered
        (registered.add if kind == Packet.EVENT_REGISTER else registered.discard)(name)
        if not known:
            registered.discard(name)
        writer.write(wire.bare(Packet.EVENT_CONFIRM if known else Packet.EVENT_UNKNOWN))

    async def _command(self, writer: asyncio.StreamWriter, name: str, payload: bytes) -> None:
        message = wire.deserialize(payload)
        self.requests.append((name, message))
        reply = self.answer(name, message, functools.partial(self._stream, writer))
        answer = wire.bare(Packet.CMD_UNKNOWN) if reply is None else wire.response(reply)
        if self.fault is not None and self.fault_on in (None, name):
            fault, self.fault = self.fault, None
            await self._misbehave(fault, writer, answer)
        else:
            writer.write(answer)

    async def _misbehave(self, fault: Fault, writer: asyncio.StreamWriter, answer: bytes) -> None:
        match fault:
            case Fault.HANG:
                await self.patience.wait()
                writer.write(answer)
            case Fault.HALF_FRAME:
                writer.write(answer[: len(answer) // 2 + 1])
                await asyncio.Event().wait()
            case Fault.TRICKLE:
                writer.write(wire.HEADER.pack(len(answer) + 10_000))
                for byte in itertools.cycle(answer):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.01)
            case Fault.CLOSE:
                writer.transport.abort()
            case Fault.GARBAGE:
                writer.write(wire.frame(bytes([Packet.CMD_RESPONSE]) + b"\x02\x02\x02"))
            case Fault.OVERSIZE:
                writer.write(wire.HEADER.pack(512 * 1024 + 1))
            case Fault.UNKNOWN_TYPE:
                writer.write(wire.bare(99))
            case Fault.WRONG_TYPE:
                writer.write(wire.bare(Packet.EVENT_CONFIRM))
            case Fault.TWICE:
                writer.write(answer + answer)
            case Fault.UNKNOWN_EVENT:
                writer.write(wire.event("no-such-event", {"a": "b"}) + answer)
            case Fault.FLOOD:
                noise = {"group": "NET", "level": "1", "thread": "1", "msg": "sending packet"}
                writer.write(wire.event("log", noise) * 10_000 + answer)

    def _stream(self, writer: asyncio.StreamWriter, name: str, message: dict[str, Any]) -> None:
        if name in self._clients.get(writer, ()):
            writer.write(wire.event(name, message))


class Threaded:
    """A fake charon in a thread and loop of its own, for tests that start another process or block."""

    def __init__(self, path: Path, *, version: str = "5.9.8") -> None:
        self._fake = FakeCharon(path, version=version)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake charon", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self._fake.start(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._fake.stop(), self._loop).result(10)

    def call(self, function: Callable[[FakeCharon], T]) -> T:
        """The result of `function`, called with the fake in its own loop."""

        async def called() -> T:
            return function(self._fake)

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(10)
