"""The control socket's server: turns HTTP over the Unix socket into calls of the `Service`.

Every connection carries one request. Errors are an ErrorReply with HTTP's status code; a traceback goes to
the log and never to the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import structlog
from aiohttp import web

from swanmesh.control.gate import Gate, GateKeeper, Limits
from swanmesh.control.listener import BACKLOG, Listener, listen
from swanmesh.control.protocol import (
    ConfirmRequest,
    ErrorReply,
    PeerCommandRequest,
    ReloadRequest,
    RenewRequest,
    Service,
)
from swanmesh.control.stream import records
from swanmesh.core.model import InvalidInput
from swanmesh.core.peers.description import NoSuchPeer

_log = structlog.get_logger(__name__)
_Request = TypeVar("_Request", bound=msgspec.Struct)
_Result = TypeVar("_Result")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}|::[A-Fa-f0-9.:]{0,43}", re.ASCII)
_ProtocolFactory = Callable[[], asyncio.Protocol]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """The request cannot be answered as it is; answered with `status` and the text."""

    def __init__(self, status: int, error: str, remedy: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.reply = ErrorReply(error=error, remedy=remedy)


class ControlServer:
    """Serves `service` at `socket`, for root, the service's user and members of `group`."""

    def __init__(
        self, service: Service, socket: Path, group: str | None = None, *, limits: Limits | None = None
    ) -> None:
        self._service = service
        self._socket = socket
        self._group = group
        self._limits = limits or Limits()
        self._stopping = asyncio.Event()
        self._followers: Counter[int] = Counter()
        """Long requests under way, by the caller's uid."""
        self._listener: Listener | None = None
        self._keeper: GateKeeper | None = None
        self._server: asyncio.AbstractServer | None = None
        self._runner: web.AppRunner | None = None

    async def start(self, listener: Listener | None = None) -> None:
        """Answer on the socket, made here unless given. Raises SocketUnusable with what is in the way."""
        listener = listener or listen(self._socket, self._group)
        try:
            # handler_cancellation: a `wait` or an event stream ends when its caller goes away.
            runner = web.AppRunner(
                self._application(),
                access_log=None,
                handler_cancellation=True,
                lingering_time=1.0,
                shutdown_timeout=1.0,
            )
            await runner.setup()
            self._keeper = GateKeeper(self._limits, listener.group, cast(_ProtocolFactory, runner.server))
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(self._keeper, sock=listener.sock, backlog=BACKLOG)
        except BaseException:
            listener.close()
            raise
        self._listener, self._runner = listener, runner

    async def stop(self) -> None:
        """Answer what is under way, end streams and waits, and remove the socket file if it is still ours."""
        self._stopping.set()
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._keeper is not None:
            self._keeper.abort_all()

    def _application(self) -> web.Application:
        application = web.Application(
            middlewares=[self._answer_safely], client_max_size=self._limits.request_bytes
        )
        router = application.router
        router.add_get("/v1/status", self._status)
        router.add_get("/v1/plan", self._plan)
        router.add_get("/v1/policy", self._policy)
        router.add_post("/v1/reload", self._reload)
        router.add_get("/v1/confirm", self._held)
        router.add_post("/v1/confirm", self._confirm)
        router.add_post("/v1/peer-command", self._peer_command)
        router.add_post("/v1/renew", self._renew)
        router.add_get("/v1/wait", self._wait)
        router.add_get("/v1/events", self._events)
        router.add_get("/v1/health", self._health)
        router.add_get("/metrics", self._metrics)
        return application

    # What surrounds every request

    @web.middleware
    async def _answer_safely(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        gate = self._gate(request)
        gate.begin()
        try:
            if not gate.allowed:
                raise Refused(403, "not allowed", "run as root or as a member of the socket's group")
            response = await handler(request)
        except Refused as refused:
            response = _json(refused.reply, refused.status)
        except NoSuchPeer as unknown:
            response = _json(ErrorReply(error=str(unknown)), 404)
        except InvalidInput as invalid:
            response = _json(ErrorReply(error=str(invalid)), 400)
        except web.HTTPException as refused:
            response = _json(ErrorReply(error=refused.reason), refused.status)
        except ConnectionError:
            raise
        except Exception:
            _log.exception("request failed", method=request.method, path=request.path)
            response = _json(ErrorReply(error="internal error", remedy="see the log of the service"), 500)
        response.force_close()
        return response

    def _gate(self, request: web.Request) -> Gate:
        return cast(GateKeeper, self._keeper).gate_of(request.protocol)

    @contextlib.contextmanager
    def _following(self, gate: Gate) -> Iterator[None]:
        """Room for a long request among the others; nobody takes it all, and some of it is root's."""
        limits, uid = self._limits, gate.uid
        room = limits.followers if gate.privileged else limits.followers - limits.reserved
        each = limits.followers if gate.privileged else limits.followers_each
        if self._followers.total() >= room or self._followers[uid] >= each:
            raise Refused(503, "too many waits and event streams at a time", "end some and try again")
        self._followers[uid] += 1
        try:
            yield
        finally:
            self._followers[uid] -= 1
            if not self._followers[uid]:
                del self._followers[uid]

    async def _until_stop(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """The result of `work`, unless the server stops first. Raises Refused then."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Refused(410, "the service is stopping")
            return task.result()
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    # Requests

    async def _status(self, request: web.Request) -> web.StreamResponse:
        query = _query(request, "peer", "fresh")
        return _json(await self._service.status(_names(query), fresh=_flag(query, "fresh")))

    async def _policy(self, request: web.Request) -> web.StreamResponse:
        query = _query(request, "peer", "settle")
        settle = self._time(query, "settle", "0")
        gate = self._gate(request)
        with self._following(gate):
            gate.extend(settle + self._limits.reply_time)
            return _json(await self._until_stop(self._service.policy(_names(query), settle=settle)))

    async def _plan(self, request: web.Request) -> web.StreamResponse:
        _query(request)
        return _json(self._service.plan())

    async def _health(self, request: web.Request) -> web.StreamResponse:
        """Answers as long as the service's loop turns; what charon does is told by the status."""
        _query(request)
        return _json({"status": "ok"})

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        text = await self._service.metrics()
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _reload(self, request: web.Request) -> web.StreamResponse:
        wanted = await self._body(request, ReloadRequest)
        # Shielded: a caller that goes away must not leave a reload half done.
        return _json(await asyncio.shield(asyncio.ensure_future(self._service.reload(wanted))))

    async def _held(self, request: web.Request) -> web.StreamResponse:
        _query(request)
        return _json(self._service.held())

    async def _confirm(self, request: web.Request) -> web.StreamResponse:
        return _json(self._service.confirm(await self._body(request, ConfirmRequest)))

    async def _peer_command(self, request: web.Request) -> web.StreamResponse:
        wanted = await self._body(request, PeerCommandRequest)
        wanted.peers = [_name(name) for name in wanted.peers]
        _check_time("wait", wanted.wait, self._limits.longest_wait)
        if not wanted.wait:
            return _json(await self._service.command(wanted))
        gate = self._gate(request)
        with self._following(gate):
            gate.extend(wanted.wait + self._limits.reply_time)
            return _json(await self._until_stop(self._service.command(wanted)))

    async def _renew(self, request: web.Request) -> web.StreamResponse:
        wanted = await self._body(request, RenewRequest)
        _check_time("wait", wanted.wait, self._limits.longest_wait)
        gate = self._gate(request)
        with self._following(gate):
            gate.extend(wanted.wait + self._limits.reply_time)
            return _json(await self._until_stop(self._service.renew(wanted)))

    async def _wait(self, request: web.Request) -> web.StreamResponse:
        query = _query(request, "peer", "timeout", "gone")
        peers, gone = _names(query), _flag(query, "gone")
        timeout = self._time(query, "timeout", "60")
        gate = self._gate(request)
        with self._following(gate):
            gate.extend(timeout + self._limits.reply_time)
            return _json(await self._until_stop(self._service.wait(peers, timeout, gone=gone)))

    def _time(self, query: dict[str, list[str]], key: str, default: str) -> float:
        try:
            length = float(query.get(key, [default])[-1])
        except ValueError:
            length = math.nan
        _check_time(key, length, self._limits.longest_wait)
        return length

    async def _body(self, request: web.Request, kind: type[_Request]) -> _Request:
        _query(request)
        try:
            async with asyncio.timeout(self._limits.request_time):
                body = await request.read()
        except TimeoutError:
            raise Refused(408, "the request's body did not come in time") from None
        try:
            return msgspec.json.decode(body or b"{}", type=kind)
        except msgspec.MsgspecError as error:
            raise Refused(400, f"the request's body: {error}") from None

    # The event stream

    async def _events(self, request: web.Request) -> web.StreamResponse:
        _query(request)
        gate = self._gate(request)
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        )
        response.force_close()
        with self._following(gate):
            stream = records(self._service.events(), self._stopping, self._limits.heartbeat)
            async with contextlib.aclosing(stream) as lines:
                await response.prepare(request)
                try:
                    async for record in lines:
                        # Whoever reads nothing for so long is dropped; the service bounds what waits.
                        gate.extend(self._limits.stalled)
                        await response.write(msgspec.json.encode(record) + b"\n")
                        gate.extend(None)
                except (ConnectionError, asyncio.CancelledError):
                    raise
                except Exception:
                    # Half an answer is out: no other can follow on this connection.
                    _log.exception("event stream failed")
                    gate.abort()
                    raise ConnectionResetError from None
        gate.extend(self._limits.stalled)
        return response


def _json(reply: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(reply), status=status, content_type="application/json")


def _query(request: web.Request, *known: str) -> dict[str, list[str]]:
    """The request's parameters. Raises Refused for one that is not known."""
    for key in request.query:
        if key not in known:
            raise Refused(400, f"unknown parameter: {key[:40]!a}")
    return {key: request.query.getall(key) for key in known if key in request.query}


def _names(query: dict[str, list[str]]) -> list[str] | None:
    names = query.get("peer")
    return [_name(name) for name in names] if names else None


def _name(text: str) -> str:
    """What may be a name, a part of one, or an address. Raises Refused."""
    if not _NAME.fullmatch(text):
        raise Refused(400, f"peer {text[:60]!a} is neither a host name nor an address")
    return text


def _check_time(key: str, seconds: float, longest: float) -> None:
    """Raises Refused, for one that is no number, too."""
    if not 0 <= seconds <= longest:
        raise Refused(400, f"{key}: must be from 0 to {longest:.0f} seconds")


def _flag(query: dict[str, list[str]], key: str) -> bool:
    text = query.get(key, ["false"])[-1].lower()
    if text not in ("1", "true", "yes", "0", "false", "no"):
        raise Refused(400, f"{key}: must be true or false")
    return text in ("1", "true", "yes")
