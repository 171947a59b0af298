"""Stands between each connection and the HTTP server: who calls, how many, how much and for how long.

aiohttp bounds a body and idle keep-alive, but waits without end for a request's headers and for a reader that
does not read. So every connection has a deadline here, and what it does moves the deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from swanmesh.control.listener import Caller, caller_of

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b'Content-Length: 42\r\n\r\n{"error":"too many connections at a time"}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the callers of the control socket may take, all together and each. Seconds and bytes."""

    connections: int = 128
    followers: int = 64
    """Long requests (events, waits) at once; the rest stays free for short ones."""
    reserved: int = 16
    """Of the connections, and of the long requests, those that only root and the service's user may have."""
    followers_each: int = 16
    """Long requests of any one other user at once."""
    request_bytes: int = 64 * 1024
    request_time: float = 5.0
    """From the connection to the end of the headers, and again to the end of the body."""
    reply_time: float = 30.0
    heartbeat: float = 15.0
    stalled: float = 10.0
    """How long an event reader may read nothing before it is dropped."""
    longest_wait: float = 86400.0


class Gate(asyncio.Protocol):
    """One connection. Passes everything on to the HTTP protocol `inner`, once it is let in."""

    def __init__(self, keeper: GateKeeper, inner: asyncio.Protocol) -> None:
        self._keeper = keeper
        self._inner = inner
        self._let_in = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._headers_end = False
        self._tail = b""
        self.allowed = False
        """Whether the caller may use the control socket."""
        self.uid = -1
        """Who calls; -1 if the kernel does not tell."""

    @property
    def privileged(self) -> bool:
        """Root, or the service's own user: they could do all else, too."""
        return self.uid in (0, os.geteuid())

    def begin(self) -> None:
        """A request with all its headers is there."""
        self._keeper.speaks(self)
        limits = self._keeper.limits
        self.extend(limits.request_time + limits.reply_time)

    def extend(self, seconds: float | None) -> None:
        """From now on the connection may live `seconds` (None: until its handler ends it)."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None and self._transport is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)

    def abort(self) -> None:
        """Drop the connection with whatever is still unsent."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.extend(self._keeper.limits.request_time)
        with contextlib.suppress(OSError):
            caller = caller_of(transport.get_extra_info("socket"))
            self.uid, self.allowed = caller.uid, self._keeper.allows(caller)
        if not self._keeper.admit(self):
            self._transport.write(_BUSY)
            self._transport.close()
            return
        self._let_in = True
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._let_in:
            return
        if not self._headers_end:
            self._read_headers(data)
        self._inner.data_received(data)

    def _read_headers(self, data: bytes) -> None:
        """aiohttp bounds each header and, in later versions only, their number; here it is their sum."""
        end = (self._tail + data).find(b"\r\n\r\n")
        self._headers_end = end >= 0
        self._header_bytes += end if self._headers_end else len(data)
        self._tail = data[-3:]
        if self._header_bytes > self._keeper.limits.request_bytes:
            self.abort()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._let_in else None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.extend(None)
        self._keeper.release(self, self._inner)
        if self._let_in:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._let_in:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._let_in:
            self._inner.resume_writing()


class GateKeeper:
    """All connections of one control socket. Call it for a gate (a protocol factory of asyncio's)."""

    def __init__(self, limits: Limits, group: int | None, inner: Callable[[], asyncio.Protocol]) -> None:
        self.limits = limits
        self._group = group
        self._inner = inner
        self._open: set[Gate] = set()
        self._silent: dict[Gate, None] = {}
        self._by_inner: dict[asyncio.BaseProtocol, Gate] = {}

    def __call__(self) -> Gate:
        inner = self._inner()
        gate = Gate(self, inner)
        self._by_inner[inner] = gate
        return gate

    def gate_of(self, inner: asyncio.BaseProtocol) -> Gate:
        return self._by_inner[inner]

    def allows(self, caller: Caller) -> bool:
        """Root, the service's own user, and members of the socket's group."""
        return caller.uid in (0, os.geteuid()) or (self._group is not None and self._group in caller.groups)

    def admit(self, gate: Gate) -> bool:
        """Room for one more; where there is none, the oldest that has asked for nothing yet gives way."""
        if len(self._open) >= self.limits.connections - (0 if gate.privileged else self.limits.reserved):
            oldest = next(iter(self._silent), None)
            if oldest is None:
                return False
            del self._silent[oldest]
            self._open.discard(oldest)
            oldest.abort()
        self._open.add(gate)
        self._silent[gate] = None
        return True

    def speaks(self, gate: Gate) -> None:
        self._silent.pop(gate, None)

    def release(self, gate: Gate, inner: asyncio.BaseProtocol) -> None:
        self._open.discard(gate)
        self._silent.pop(gate, None)
        self._by_inner.pop(inner, None)

    def abort_all(self) -> None:
        for gate in tuple(self._by_inner.values()):
            gate.abort()
