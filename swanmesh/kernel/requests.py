"""What is asked of the kernel's IPsec, one request at a time: look, count, put back, guard."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncGenerator, Callable

from swanmesh.core.actions import Outcome, RestorePolicies
from swanmesh.core.guard.keeping import Change
from swanmesh.core.xfrm import KernelHoldings, XfrmPolicy, XfrmState
from swanmesh.kernel import netlink
from swanmesh.kernel.segmentation import segmenting

_NETLINK_XFRM = 6
DATAGRAM = 1 << 16
"""Bytes read at once."""
_ANSWER = 10.0
"""Seconds that the kernel's answers may take in all; they are a matter of milliseconds."""
_POLICIES = 100
"""Policies of the guard's in one call: as many answers as there is room for."""


def open_socket() -> socket.socket:
    """A socket to the kernel's IPsec. Raises OSError where the kernel has none."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_XFRM)


class Requests:
    """Each opens a socket of its own."""

    def __init__(self, opener: Callable[[], socket.socket] = open_socket) -> None:
        self._opener = opener

    async def traffic(self) -> dict[str, int] | None:
        """Packets of all states by their SPI."""
        try:
            async with contextlib.aclosing(self._dump(netlink.GET_SA)) as shown:
                return dict([found async for body in shown if (found := netlink.packets_of(body))])
        except OSError:
            return None

    async def restore(self, actions: list[RestorePolicies]) -> list[Outcome]:
        """Both policies of each; they stand when this returns."""
        request = b"".join(
            netlink.restore(action.addresses, action.reqid, replace=action.replace, sequence=2 * index + 2)
            for index, action in enumerate(actions)
        )
        failed: dict[int, str] = {}
        try:
            for sequence, number in (await self._acknowledged(request)).items():
                if number not in (0, errno.EEXIST):
                    failed[sequence // 2 - 1] = _refusal(number)
        except OSError as error:
            failed = dict.fromkeys(range(len(actions)), explain(error))
        return [Outcome(action, failed.get(index)) for index, action in enumerate(actions)]

    async def change(self, change: Change) -> str | None:
        """Put, then drop; what is not there any more need not be dropped. One that is refused holds up no
        other. Returns the first refusal."""
        requests = netlink.changes(change.put, change.drop)
        refused: dict[int, int] = {}
        try:
            for begin in range(0, len(requests), _POLICIES):
                answered = await self._acknowledged(b"".join(requests[begin : begin + _POLICIES]))
                refused |= {sequence: number for sequence, number in answered.items() if number}
        except OSError as error:
            return explain(error)
        drops = range(len(change.put) + 1, len(requests) + 1)
        for sequence, number in sorted(refused.items()):
            if number != errno.ENOENT or sequence not in drops:
                return _refusal(number)
        return None

    async def _acknowledged(self, request: bytes) -> dict[int, int]:
        """The error number that the kernel answers to each message of a request, by sequence number; 0 is
        success. Raises OSError."""
        waiting = {message.sequence for message in netlink.messages(request)}
        answered: dict[int, int] = {}
        async with contextlib.aclosing(self._answers(request)) as answers:
            async for message in answers:
                if message.kind == netlink.ERROR and message.sequence in waiting:
                    answered[message.sequence] = netlink.errno_of(message)
                if len(answered) == len(waiting):
                    break
        return answered

    async def look(self) -> KernelHoldings:
        """Raises OSError when the kernel refuses, or had more to show than there was room for."""
        states: list[XfrmState] = []
        policies: list[XfrmPolicy] = []
        async with contextlib.aclosing(self._dump(netlink.GET_SA)) as shown:
            async for body in shown:
                if (state := netlink.state(body)) is not None:
                    states.append(state)
        async with contextlib.aclosing(self._dump(netlink.GET_POLICY)) as shown:
            async for body in shown:
                if (policy := netlink.policy(body)) is not None:
                    policies.append(policy)
        return KernelHoldings(tuple(states), tuple(policies), segmenting(states))

    async def _dump(self, kind: int) -> AsyncGenerator[memoryview, None]:
        """The bodies of all that there is of a kind."""
        async with contextlib.aclosing(self._answers(netlink.dump(kind, 1))) as answers:
            async for message in answers:
                if message.kind == netlink.DONE:
                    return
                if message.kind == netlink.ERROR:
                    number = netlink.errno_of(message)
                    raise OSError(number, os.strerror(number))
                if message.kind in (netlink.NEW_SA, netlink.NEW_POLICY):
                    yield message.body

    async def _answers(self, request: bytes) -> AsyncGenerator[netlink.Message, None]:
        """What the kernel answers, datagram by datagram; others have their turn in between."""
        loop = asyncio.get_running_loop()
        with self._opener() as requests:
            requests.setblocking(False)
            async with asyncio.timeout(_ANSWER):
                await loop.sock_sendall(requests, request)
                while data := await loop.sock_recv(requests, DATAGRAM):
                    for message in netlink.messages(data):
                        yield message
                    await asyncio.sleep(0)
        raise OSError(errno.ECONNRESET, "the kernel's answer ended")


async def holdings() -> KernelHoldings:
    """One look, for whoever does not watch. Raises OSError where the kernel does not show it."""
    return await Requests().look()


def explain(error: OSError) -> str:
    """Why the kernel cannot be watched, and what to do about it."""
    if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
        return "this kernel shows no IPsec: load its module xfrm_user (or let the service use AF_NETLINK)"
    if error.errno in (errno.EPERM, errno.EACCES):
        return "not permitted to look at the kernel's IPsec: the service needs CAP_NET_ADMIN"
    return f"the kernel does not show its IPsec: {error.strerror or error}"


def _refusal(number: int) -> str:
    return f"the kernel refused a policy: {os.strerror(number)}"
