"""Sends probes through the associations, and answers those of the peers.

The service is open to members alone, and to them only through ESP. It is bound to this host's own addresses;
each socket has a policy of its own that lets nothing in but what came through ESP (`IP_XFRM_POLICY`, which
the kernel checks before a datagram reaches the socket, whatever other policies there are); and only address
pairs that have an association are answered. An answer is never longer than the question, and a peer gets so
many a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from swanmesh.core.actions import Action, Probe
from swanmesh.core.model import Address, AddressPair
from swanmesh.core.pairs.data_path import Heard
from swanmesh.kernel.netlink import socket_policy
from swanmesh.probe.datagram import ANSWER, ASK, SIZE, Datagram, decode

NOBODY = 9
"""The port of `discard` (RFC 863), where nobody has listened for decades: the kernel says so to who asks."""
_RETRY = 10.0
"""Seconds until sockets that could not be opened are tried again."""
_GATHER = 0.1
"""Seconds over which what comes in is gathered into one report."""
_AT_ONCE = 64
"""Datagrams that are read before others have their turn."""
_PER_PEER, _IN_ALL = 20, 2000
"""Answers in a second at most."""
_PENDING = 1 << 14
"""Questions that are remembered at most."""
_TRUNCATED = 2048
_UNREACHABLE = {(2, 3, 3), (3, 1, 4)}
"""Origin, type and code of a port unreachable (linux/errqueue.h; RFC 792, RFC 4443)."""
_ERROR = struct.Struct("=IBBBxII")


@dataclass(frozen=True, slots=True)
class ProbesReady:
    """Whether probes can be sent; `reason` says why not."""

    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ProbesHeard:
    heard: tuple[Heard, ...]


ProbeReport = ProbesReady | ProbesHeard


@dataclass(frozen=True, slots=True)
class _Options:
    """Numbers of one family's socket options (linux/in.h, linux/in6.h)."""

    level: int
    freebind: int
    recverr: int
    policy: int
    mtu_discover: int
    mtu: int


_OPTIONS = {
    4: _Options(socket.IPPROTO_IP, 15, 11, 17, 10, 14),
    6: _Options(socket.IPPROTO_IPV6, 78, 25, 35, 23, 24),
}
_HEADERS = {4: 28, 6: 48}
"""Bytes of the IP and UDP headers."""
_PMTUDISC_PROBE = 3
"""IP_PMTUDISC_PROBE and IPV6_PMTUDISC_PROBE: never in fragments, whatever is believed of the path."""


class ProbeLink:
    """One UDP socket for each own address. `known` says which address pairs are up."""

    def __init__(self, report: Callable[[ProbeReport], None], known: Callable[[AddressPair], bool]) -> None:
        self._report = report
        self._known = known
        self._wanted: tuple[int, tuple[Address, ...]] = (0, ())
        self._changed = asyncio.Event()
        self._sockets: dict[Address, socket.socket] = {}
        self._pending: dict[bytes, tuple[AddressPair, int]] = {}
        self._answered: Counter[Address] = Counter()
        self._heard: list[Heard] = []

    def configure(self, port: int, addresses: Iterable[Address]) -> None:
        """Answer at this port (0: nowhere) of these addresses from now on."""
        wanted = (port, tuple(addresses))
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    def submit(self, actions: Iterable[Action]) -> None:
        """Send these probes. What comes of them is reported, if anything."""
        for action in actions:
            if isinstance(action, Probe):
                self._ask(action)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._changed.clear()
                failed = self._open()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY if failed else None):
                        await self._changed.wait()
        finally:
            self._close()

    # Sockets.

    def _open(self) -> bool:
        """Returns whether something is left to be tried again."""
        self._close()
        port, addresses = self._wanted
        if not port:
            self._report(ProbesReady(False))
            return False
        loop = asyncio.get_running_loop()
        try:
            for address in addresses:
                self._sockets[address] = sock = _socket(address, port)
                loop.add_reader(sock, self._readable, address, sock)
        except OSError as error:
            self._close()
            self._report(ProbesReady(False, f"UDP port {port}: {error.strerror or error}"))
            return True
        self._report(ProbesReady(True))
        return False

    def _close(self) -> None:
        for sock in self._sockets.values():
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()

    # Asking.

    def _ask(self, probe: Probe) -> None:
        sock = self._sockets.get(probe.addresses.local)
        if sock is None:
            return
        remote, port = str(probe.addresses.remote), self._wanted[0]
        data = Datagram(ASK, self._nonce(probe.addresses, 0), probe.silence).encode()
        _send(sock, data, remote, port)
        for _ in range(probe.echoes):
            _send(sock, data, remote, NOBODY)
        if probe.packet is not None:
            self._ask_with(probe, sock, remote, port)

    def _ask_with(self, probe: Probe, sock: socket.socket, remote: str, port: int) -> None:
        """A packet of a size."""
        size, headers = probe.packet or 0, _HEADERS[probe.addresses.local.version]
        if not size:
            size = _believed(probe.addresses, port)
            self._tell(Heard(probe.addresses, "sent", size))
        if size >= headers + SIZE:
            nonce = self._nonce(probe.addresses, size)
            _send(sock, Datagram(ASK, nonce, probe.silence).encode(size - headers), remote, port)

    def _nonce(self, addresses: AddressPair, size: int) -> bytes:
        nonce = os.urandom(8)
        while len(self._pending) >= _PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[nonce] = addresses, size
        return nonce

    # Answering.

    def _readable(self, local: Address, sock: socket.socket) -> None:
        self._take_errors(local, sock)
        for _ in range(_AT_ONCE):
            try:
                data, sender = sock.recvfrom(_TRUNCATED)
            except BlockingIOError:
                return
            except OSError:  # of a datagram sent before, and told by the error queue
                continue
            datagram = decode(data)
            if datagram is not None:
                self._take(datagram, AddressPair(local, _address(sender[0])), sock, sender)

    def _take(
        self, datagram: Datagram, addresses: AddressPair, sock: socket.socket, sender: tuple[str, int]
    ) -> None:
        if not self._known(addresses):
            return
        if datagram.kind == ANSWER:
            asked, size = self._pending.get(datagram.nonce, (None, 0))
            if asked == addresses:
                del self._pending[datagram.nonce]
                self._tell(Heard(addresses, "answer", size))
            return
        if not self._answered:
            asyncio.get_running_loop().call_later(1.0, self._answered.clear)
        if self._answered[addresses.remote] >= _PER_PEER or self._answered.total() >= _IN_ALL:
            return
        self._answered[addresses.remote] += 1
        _send(sock, Datagram(ANSWER, datagram.nonce).encode(), *sender[:2])
        self._tell(Heard(addresses, "ask", silence=datagram.silence))

    def _take_errors(self, local: Address, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                _, about, _, sent_to = sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            for _, _, data in about:
                if len(data) < _ERROR.size or not sent_to:
                    continue
                number, *kind, _, _ = _ERROR.unpack_from(data)
                addresses = AddressPair(local, _address(sent_to[0]))
                refused = number == errno.ECONNREFUSED and tuple(kind) in _UNREACHABLE
                if refused and sent_to[1] == NOBODY and self._known(addresses):
                    self._tell(Heard(addresses, "echo"))

    def _tell(self, heard: Heard) -> None:
        if not self._heard:
            asyncio.get_running_loop().call_later(_GATHER, self._flush)
        self._heard.append(heard)

    def _flush(self) -> None:
        heard, self._heard = tuple(self._heard), []
        self._report(ProbesHeard(heard))


def _socket(address: Address, port: int) -> socket.socket:
    """Raises OSError."""
    options = _OPTIONS[address.version]
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        # The address may come to its interface later.
        sock.setsockopt(options.level, options.freebind, 1)
        sock.setsockopt(options.level, options.recverr, 1)
        sock.setsockopt(options.level, options.mtu_discover, _PMTUDISC_PROBE)
        _admit_esp_alone(sock, options, address.version)
        sock.bind((str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


def _admit_esp_alone(sock: socket.socket, options: _Options, version: int) -> None:
    """Where the kernel has no IPsec nothing is up, and nobody is answered."""
    try:
        sock.setsockopt(options.level, options.policy, socket_policy(version))
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPERM):
            raise


def _believed(addresses: AddressPair, port: int) -> int:
    """The largest packet before ESP that the kernel believes to pass; 0 if it has no way there."""
    options, local = _OPTIONS[addresses.local.version], str(addresses.local)
    family = socket.AF_INET if addresses.local.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.bind((local, 0))
            sock.connect((str(addresses.remote), port))
            return sock.getsockopt(options.level, options.mtu)
    except OSError:
        return 0


def _send(sock: socket.socket, data: bytes, remote: str, port: int) -> None:
    """What cannot be sent now is as good as lost."""
    with contextlib.suppress(OSError):
        sock.sendto(data, (remote, port))


@lru_cache(maxsize=1 << 13)
def _address(text: str) -> Address:
    return ipaddress.ip_address(text)
