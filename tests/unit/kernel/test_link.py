"""The kernel's messages, and a kernel that tells, refuses, floods and falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swanmesh.core.actions import ChangeGuard, ObserveKernel, Outcome, RestorePolicies
from swanmesh.core.guard.keeping import Change
from swanmesh.core.guard.policies import Cover, Ground, Opening
from swanmesh.core.model import AddressPair
from swanmesh.core.reasons import Reason
from swanmesh.core.xfrm import (
    Direction,
    EventsLost,
    KernelEvent,
    KernelHoldings,
    KernelUnwatched,
    KernelWatched,
    PacketCalls,
    PoliciesFlushed,
    PolicyDeleted,
    StateDeleted,
    StatesFlushed,
    XfrmPolicy,
    XfrmState,
)
from swanmesh.kernel import link as kernel
from swanmesh.kernel import netlink, requests
from swanmesh.kernel.link import KernelChanged, KernelLink, KernelObserved, KernelReport, describe
from swanmesh.kernel.requests import explain

V4 = AddressPair(ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.2"))
V6 = AddressPair(ipaddress.ip_address("2001:db8::1"), ipaddress.ip_address("2001:db8::2"))
WAIT = 5.0

# An xfrm_usersa_info as linux/xfrm.h lays it out: selector, destination, SPI, protocol, source; at 208 the
# reqid, family and mode.
STATE = (
    bytes(56)
    + ipaddress.ip_address("192.0.2.2").packed.ljust(16, b"\0")
    + bytes.fromhex("c7faa48a")
    + bytes([50, 0, 0, 0])
    + ipaddress.ip_address("192.0.2.1").packed.ljust(16, b"\0")
)
STATE = STATE.ljust(208, b"\0") + struct.pack("=IHBB", 1, socket.AF_INET, 0, 0)
STATE = STATE.ljust(224, b"\0")


def message(kind: int, body: bytes = b"", sequence: int = 1) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body
    return whole.ljust((len(whole) + 3) & ~3, b"\0")


def error(number: int, sequence: int = 1) -> bytes:
    return message(netlink.ERROR, struct.pack("=i", -number) + bytes(16), sequence)


def installed(addresses: AddressPair, reqid: int = 7) -> list[bytes]:
    """The bodies of the two messages that put an association's policies back."""
    request = netlink.restore(addresses, reqid, replace=False, sequence=2)
    return [bytes(m.body) for m in netlink.messages(request)]


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


# The codec.


def test_a_state_is_read_without_its_key() -> None:
    found = netlink.state(memoryview(STATE + b"\x00\x01secret"))
    assert found == XfrmState(ipaddress.ip_address("192.0.2.2"), "c7faa48a", 50, True, 1)


@pytest.mark.parametrize("addresses", [V4, V6])
def test_what_is_put_back_reads_as_what_charon_installs(addresses: AddressPair) -> None:
    out, into = (netlink.policy(memoryview(body)) for body in installed(addresses))
    bits = addresses.local.max_prefixlen
    priority = {32: 367231, 128: 268927}[bits]
    assert out == XfrmPolicy(
        *(Direction.OUT, addresses.local, bits, addresses.remote, bits, 0, 0, True, 7, priority, 0)
    )
    assert into == XfrmPolicy(
        *(Direction.IN, addresses.remote, bits, addresses.local, bits, 0, 0, True, 7, priority, 0)
    )
    assert out.single_hosts


def test_policies_are_put_back_beside_others_or_in_their_place() -> None:
    kinds = {
        replace: [
            (m.kind, m.sequence)
            for m in netlink.messages(netlink.restore(V4, 7, replace=replace, sequence=8))
        ]
        for replace in (False, True)
    }
    assert kinds == {
        False: [(netlink.NEW_POLICY, 8), (netlink.NEW_POLICY, 9)],
        True: [(netlink.UPDATE_POLICY, 8), (netlink.UPDATE_POLICY, 9)],
    }


def test_the_policies_of_sockets_are_left_out() -> None:
    body = bytearray(installed(V4)[0])
    body[160] = 3
    assert netlink.policy(memoryview(bytes(body))) is None


def test_a_policy_without_template_has_no_reqid() -> None:
    found = netlink.policy(memoryview(installed(V4)[0][:168]))
    assert found is not None and found.allow and found.reqid == 0


@pytest.mark.parametrize(("offset", "value"), [(48, 1), (20, 51)], ids=["tunnel mode", "AH"])
def test_only_a_template_for_esp_in_transport_mode_counts(offset: int, value: int) -> None:
    body = bytearray(installed(V4)[0])
    body[172 + offset] = value
    found = netlink.policy(memoryview(bytes(body)))
    assert found is not None and found.reqid == 0


def test_an_icmp_type_stands_where_the_port_does() -> None:
    body = bytearray(installed(V6)[0])
    body[36:38] = (135).to_bytes(2, "big")
    body[42:45] = bytes([0, 0, 58])
    found = netlink.policy(memoryview(bytes(body)))
    assert found is not None
    assert (found.protocol, found.source_port, found.source_bits, found.single_hosts) == (58, 135, 0, False)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_a_fault(data: bytes) -> None:
    for found in netlink.messages(data):
        netlink.errno_of(found)
    for reader in (netlink.state, netlink.policy, netlink.deleted_spi):
        reader(memoryview(data))
    list(kernel._events_of(data))


@given(st.integers(0, 300), st.integers(0, 255))
def test_a_policy_that_is_cut_short_or_bent_is_read_without_a_fault(length: int, value: int) -> None:
    body = bytearray(installed(V4)[0][:length])
    for offset in (40, 160, 168, 169, 170):
        if offset < len(body):
            body[offset] = value
    netlink.policy(memoryview(bytes(body)))


# The link, with a kernel of our own at the other end.


class FakeKernel:
    """Answers each request socket from `answers`, and sends what it is told to the socket for events."""

    def __init__(self) -> None:
        self.sockets: list[tuple[socket.socket, socket.socket]] = []
        self.held: tuple[list[bytes], list[bytes]] = ([], [])
        self.refuse: dict[int, int] = {}
        """errno of the answer to each kind of request."""
        self.opening: OSError | None = None
        self.requests: list[netlink.Message] = []

    def open(self) -> socket.socket:
        if self.opening is not None:
            raise self.opening
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self.sockets.append((ours, theirs))
        if len(self.sockets) > 1:
            asyncio.get_running_loop().add_reader(theirs, self._serve, theirs)
        return ours

    def tell(self, *data: bytes) -> None:
        self.sockets[0][1].send(b"".join(data))

    def close(self) -> None:
        for _, theirs in self.sockets:
            if theirs.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(theirs)
            theirs.close()

    def _serve(self, end: socket.socket) -> None:
        try:
            data = end.recv(1 << 20)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(end)
            return
        found = [
            netlink.Message(m.kind, m.sequence, memoryview(bytes(m.body))) for m in netlink.messages(data)
        ]
        self.requests += found
        for request in found:
            number = self.refuse.get(request.kind)
            if request.kind in (netlink.GET_SA, netlink.GET_POLICY) and number is None:
                kind = netlink.NEW_SA if request.kind == netlink.GET_SA else netlink.NEW_POLICY
                for body in self.held[request.kind == netlink.GET_POLICY]:
                    end.send(message(kind, body))
                end.send(message(netlink.DONE, bytes(4)))
            else:
                end.send(error(number or 0, request.sequence))


class Reports:
    def __init__(self) -> None:
        self._queue: asyncio.Queue[KernelReport] = asyncio.Queue()

    def put(self, report: KernelReport) -> None:
        self._queue.put_nowait(report)

    async def next(self) -> KernelReport:
        async with asyncio.timeout(WAIT):
            return await self._queue.get()

    async def event(self) -> KernelEvent:
        report = await self.next()
        assert isinstance(report, KernelChanged)
        return report.event

    @property
    def empty(self) -> bool:
        return self._queue.empty()


@contextlib.asynccontextmanager
async def linked(fake: FakeKernel, retry: float = 60.0) -> AsyncIterator[tuple[KernelLink, Reports]]:
    reports = Reports()
    link = KernelLink(reports.put, opener=fake.open, retry=retry)
    running = asyncio.create_task(link.run())
    try:
        yield link, reports
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        fake.close()


def restores(count: int, *, replace: bool = False) -> list[RestorePolicies]:
    return [
        RestorePolicies(
            connection=f"c{n}",
            peer="p",
            addresses=V4,
            reqid=n + 1,
            replace=replace,
            reason=Reason("test", "a test"),
        )
        for n in range(count)
    ]


@asynchronous
async def test_what_the_kernel_holds_is_shown() -> None:
    fake = FakeKernel()
    fake.held = ([STATE, b"short"], installed(V6))
    async with linked(fake) as (link, reports):
        assert await reports.event() == KernelWatched()
        look = ObserveKernel(reason=Reason("test", "a test"))
        link.submit([look])
        report = await reports.next()
        assert isinstance(report, KernelObserved) and report.action is look
        assert isinstance(report.what, KernelHoldings)
        assert [state.spi for state in report.what.states] == ["c7faa48a"]
        assert [policy.direction for policy in report.what.policies] == [Direction.OUT, Direction.IN]


@asynchronous
async def test_what_others_do_to_it_is_told() -> None:
    fake = FakeKernel()
    async with linked(fake) as (_, reports):
        assert await reports.event() == KernelWatched()
        deleted = bytes(16) + bytes.fromhex("c7faa48a") + bytes(4)
        fake.tell(message(netlink.NEW_SA, STATE), message(netlink.FLUSH_SA, bytes(8)))
        fake.tell(message(netlink.FLUSH_POLICY), message(netlink.DEL_SA, deleted))
        fake.tell(message(netlink.DEL_POLICY, installed(V4)[0]), message(netlink.DEL_POLICY, bytes(64)))
        told_of = [await reports.event() for _ in range(4)]
        assert told_of == [StatesFlushed(), PoliciesFlushed(), StateDeleted("c7faa48a"), PolicyDeleted()]
        assert reports.empty


@asynchronous
async def test_policies_are_put_back_and_each_has_its_outcome() -> None:
    fake = FakeKernel()
    async with linked(fake) as (link, reports):
        await reports.event()
        actions = restores(70)
        link.submit(actions)
        outcomes = [await reports.next() for _ in actions]
        assert outcomes == [Outcome(action, None) for action in actions]
        put = [request for request in fake.requests if request.kind == netlink.NEW_POLICY]
        reqids = [policy.reqid for m in put if (policy := netlink.policy(m.body)) is not None]
        assert reqids == [n + 1 for n in range(70) for _ in range(2)]


@asynchronous
async def test_a_policy_that_is_there_is_no_error_and_a_refusal_is() -> None:
    fake = FakeKernel()
    fake.refuse = {netlink.NEW_POLICY: errno.EEXIST, netlink.UPDATE_POLICY: errno.ENOMEM}
    async with linked(fake) as (link, reports):
        await reports.event()
        link.submit(restores(1))
        link.submit(restores(1, replace=True))
        outcomes = [await reports.next() for _ in range(2)]
        errors = [outcome.error for outcome in outcomes if isinstance(outcome, Outcome)]
        assert errors == [None, f"the kernel refused a policy: {os.strerror(errno.ENOMEM)}"]


@asynchronous
async def test_a_look_that_the_kernel_refuses_has_an_outcome_too() -> None:
    fake = FakeKernel()
    async with linked(fake) as (link, reports):
        await reports.event()
        fake.refuse = {netlink.GET_POLICY: errno.EBUSY}
        link.submit([ObserveKernel(reason=Reason("test", "a test"))])
        report = await reports.next()
        assert isinstance(report, KernelObserved) and report.what is None


@asynchronous
async def test_a_kernel_without_ipsec_is_told_once_and_tried_again() -> None:
    fake = FakeKernel()
    fake.opening = OSError(errno.EPROTONOSUPPORT, "no")
    async with linked(fake, retry=0.01) as (_, reports):
        event = await reports.event()
        assert isinstance(event, KernelUnwatched) and "xfrm_user" in event.reason
        fake.opening = None
        assert await reports.event() == KernelWatched()
        assert reports.empty


@asynchronous
async def test_no_permission_is_a_reason_with_its_remedy() -> None:
    fake = FakeKernel()
    fake.refuse = {netlink.GET_SA: errno.EPERM}
    async with linked(fake) as (_, reports):
        event = await reports.event()
        assert isinstance(event, KernelUnwatched) and "CAP_NET_ADMIN" in event.reason


@asynchronous
async def test_events_that_end_are_asked_for_again() -> None:
    fake = FakeKernel()
    async with linked(fake) as (_, reports):
        assert await reports.event() == KernelWatched()
        fake.sockets[0][1].close()
        event = await reports.event()
        assert isinstance(event, KernelUnwatched)


class Overrun(socket.socket):
    """A socket that had more to give than its buffer holds, once."""

    full = True

    def recv(self, *arguments: Any) -> bytes:
        if self.full:
            self.full = False
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return super().recv(*arguments)


@asynchronous
async def test_events_that_found_no_room_are_told_of() -> None:
    fake = FakeKernel()
    plain = fake.open

    def open_first_full() -> socket.socket:
        opened = plain()
        if len(fake.sockets) > 1:
            return opened
        full = Overrun(fileno=opened.detach())
        fake.sockets[0] = (full, fake.sockets[0][1])
        return full

    fake.open = open_first_full  # type: ignore[method-assign]
    async with linked(fake) as (_, reports):
        assert await reports.event() == KernelWatched()
        assert await reports.event() == EventsLost()
        fake.tell(message(netlink.FLUSH_POLICY))
        assert await reports.event() == PoliciesFlushed()


def test_each_event_has_words_or_is_too_common_for_them() -> None:
    events = (KernelWatched(), KernelUnwatched("why"), StatesFlushed(), PoliciesFlushed())
    assert all(describe(event) for event in events)
    assert describe(StateDeleted("00000001")) == describe(PolicyDeleted()) == describe(EventsLost()) == ""
    assert "why" in describe(KernelUnwatched("why"))


def test_an_unknown_error_is_told_in_the_systems_words() -> None:
    assert os.strerror(errno.ENOMEM) in explain(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))


# The guard.

GUARDS = [
    *Ground(4).policies(),
    *Ground(6).policies(),
    *Cover(V4.remote, 32, closed=True, source="p").policies(),
    *Cover(V6.remote, 48, closed=False, source="p").policies(),
    *Cover(V4.remote, 24, closed=True, source="", trapped=(V4.local,)).policies(),
    *Cover(V6.remote, 64, closed=False, source="", trapped=(V6.local,)).policies(),
    *Opening(V6, out=True).policies(),
]

ACQUIRE = bytes.fromhex(
    "c0000203000000000000000000000000"
    "0000000032000000"
    "c0000201000000000000000000000000"
    "c0000203000000000000000000000000"
    "c0000201000000000000000000000000"
    "0401ffffc674ffff"
    "02002020110000000200000000000000"
    "c0000200000000000000000000000000"
    "c0000201000000000000000000000000"
    "0000000000000000"
    "02001820000000000000000000000000"
) + bytes(208)
"""As Linux 6.1 tells of a UDP packet from 192.0.2.1 to 192.0.2.3 that met a policy for 192.0.2.0/24; what is
of no interest is zeroed."""


@pytest.mark.parametrize("policy", GUARDS)
def test_what_the_guard_installs_reads_as_itself(policy: XfrmPolicy) -> None:
    (installs,) = netlink.messages(netlink.put(policy, 1))
    assert installs.kind == netlink.UPDATE_POLICY and netlink.policy(installs.body) == policy
    (deletes,) = netlink.messages(netlink.drop(policy, 1))
    told = netlink.deleted_policy(deletes.body)
    assert told is not None and told.selector == policy.selector


def test_the_deletion_of_a_policy_without_our_mark_tells_nothing_of_it() -> None:
    (deletes,) = netlink.messages(netlink.drop(GUARDS[0]._replace(owner=0), 1))
    assert netlink.deleted_policy(deletes.body) is None


def guards(*drop: XfrmPolicy) -> ChangeGuard:
    change = Change(tuple(GUARDS), drop, parts=())
    return ChangeGuard(change=change, reason=Reason("test", "a test"))


@asynchronous
async def test_a_change_of_the_guard_puts_before_it_drops() -> None:
    fake, action = FakeKernel(), guards(*(GUARDS[0]._replace(priority=n) for n in range(300)))
    async with linked(fake) as (link, reports):
        await reports.event()
        link.submit([action])
        assert await reports.next() == Outcome(action, None)
    kinds = [r.kind for r in fake.requests if r.kind in (netlink.UPDATE_POLICY, netlink.DEL_POLICY)]
    assert kinds == [netlink.UPDATE_POLICY] * len(GUARDS) + [netlink.DEL_POLICY] * 300


@pytest.mark.parametrize(
    ("kind", "number", "refused"),
    [
        (netlink.UPDATE_POLICY, errno.ENOBUFS, True),
        (netlink.UPDATE_POLICY, errno.ENOENT, True),
        (netlink.DEL_POLICY, errno.ENOENT, False),
        (netlink.DEL_POLICY, errno.EPERM, True),
    ],
)
@asynchronous
async def test_what_of_the_guard_is_refused_is_told(kind: int, number: int, refused: bool) -> None:
    fake, action = FakeKernel(), guards(GUARDS[0])
    fake.refuse[kind] = number
    async with linked(fake) as (link, reports):
        await reports.event()
        link.submit([action])
        outcome = await reports.next()
    said = f"the kernel refused a policy: {os.strerror(number)}"
    assert outcome == Outcome(action, said if refused else None)


@asynchronous
async def test_whose_policy_was_deleted_is_told_if_it_is_the_guards() -> None:
    fake = FakeKernel()
    async with linked(fake) as (_, reports):
        await reports.event()
        fake.tell(*(netlink.drop(policy, 0) for policy in (GUARDS[0], GUARDS[0]._replace(owner=0))))
        told = await reports.event()
        assert isinstance(told, PolicyDeleted) and told.policy is not None
        assert told.policy.selector == GUARDS[0].selector
        assert await reports.event() == PolicyDeleted()


@asynchronous
async def test_a_packet_that_wants_an_association_is_told() -> None:
    fake = FakeKernel()
    async with linked(fake) as (_, reports):
        await reports.event()
        fake.tell(message(netlink.ACQUIRE, ACQUIRE[:80]), message(netlink.ACQUIRE, ACQUIRE))
        told = await reports.event()
        assert told == PacketCalls(ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.3"))
        assert reports.empty


# This machine's own kernel, where it shows IPsec.


@pytest.fixture
def own_kernel() -> Iterator[None]:
    try:
        requests.open_socket().close()
    except OSError as refused:
        pytest.skip(f"{explain(refused)}")
    yield


@asynchronous
async def test_the_real_kernel_answers_or_says_that_we_may_not(own_kernel: None) -> None:
    reports = Reports()
    running = asyncio.create_task(KernelLink(reports.put).run())
    try:
        event = await reports.event()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    if os.geteuid() == 0:
        assert event == KernelWatched()
    else:
        assert isinstance(event, KernelUnwatched) and "CAP_NET_ADMIN" in event.reason
