"""Routes to single peers that say how large packets may be (linux/rtnetlink.h). Ours are known by their
protocol number; no other's is changed, and where one stands already ours gives way."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from swanmesh.core.model import AddressPair
from swanmesh.kernel.netlink import DONE, ERROR, errno_of, messages

PROTOCOL = 0x9C
"""Of routes that are ours, as `ip route show proto 156` shows them: a number that nobody else was given."""
_NETLINK_ROUTE = 0
_NEW, _DELETE, _GET = 24, 25, 26
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_CREATE, _EXCLUSIVE = 0x400, 0x200
_MAIN, _UNIVERSE, _LINK, _ANY_SCOPE, _UNICAST = 254, 0, 253, 255, 1
_DST, _OIF, _GATEWAY, _PREFSRC, _METRICS = 1, 4, 5, 7, 8
_LOCK, _MTU = 1, 2
_SOL_NETLINK, _STRICT = 270, 12
_SIOCGIFMTU = 0x8921
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
"""rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags."""
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER = 2.0
_LEAST = {4: 576, 6: 1280}
_ALIGNMENT = 4
"""Bytes to which ESP pads."""


def limit(addresses: AddressPair, largest: int, believed: int) -> None:
    """Let no packet to this peer be longer than `largest` before ESP, where `believed` was thought to pass;
    all that the route carries otherwise if `largest` is 0. Raises OSError; FileExistsError where somebody
    else has a route to this one host."""
    with _opened() as sock:
        _forget(sock, addresses)
        if not largest:
            return
        (found,) = _request(sock, _GET, 0, _get(addresses)) or (None,)
        if found is None:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        known = _attributes(found[_ROUTE.size :])
        metrics = _attributes(known.get(_METRICS, b""))
        now = int.from_bytes(metrics.get(_MTU, b""), "little") or _device_mtu(known[_OIF])
        mtu = max(_LEAST[addresses.remote.version], now - (believed - largest) - _ALIGNMENT + 1)
        flags = _ACK | _CREATE | _EXCLUSIVE
        _request(sock, _NEW, flags, _host_route(addresses, known, mtu))


def clear() -> int:
    """Take away all that are ours. Returns how many there were. Raises OSError."""
    count = 0
    for family, bits in ((socket.AF_INET, 32), (socket.AF_INET6, 128)):
        with _opened() as sock:
            ask = _ROUTE.pack(family, 0, 0, 0, 0, PROTOCOL, 0, 0, 0)
            for body in _request(sock, _GET, _DUMP, ask):
                fields = _ROUTE.unpack_from(body)
                if fields[5] == PROTOCOL and fields[1] == bits and fields[4] == _MAIN:
                    _request(sock, _DELETE, _ACK, body)
                    count += 1
    return count


def _opened() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    sock.settimeout(_ANSWER)
    # A dump by protocol alone: other programs may have a million routes.
    sock.setsockopt(_SOL_NETLINK, _STRICT, 1)
    return sock


def _request(sock: socket.socket, kind: int, flags: int, body: bytes) -> list[bytes]:
    """The bodies of the answer. Raises OSError."""
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body)
    found: list[bytes] = []
    while True:
        for message in messages(sock.recv(1 << 16)):
            if message.kind == DONE:
                return found
            if message.kind == ERROR:
                if number := errno_of(message):
                    raise OSError(number, os.strerror(number))
                return found
            found.append(bytes(message.body))
        if not flags & (_DUMP | _ACK):
            return found


def _forget(sock: socket.socket, addresses: AddressPair) -> None:
    remote = addresses.remote
    body = _message(remote.version, PROTOCOL, _ANY_SCOPE) + _packed(_DST, remote.packed)
    try:
        _request(sock, _DELETE, _ACK, body)
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.ENOENT):
            raise


def _get(addresses: AddressPair) -> bytes:
    remote = addresses.remote
    family = socket.AF_INET if remote.version == 4 else socket.AF_INET6
    head = _ROUTE.pack(family, remote.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return head + _packed(_DST, remote.packed)


def _host_route(addresses: AddressPair, known: dict[int, bytes], mtu: int) -> bytes:
    gateway = known.get(_GATEWAY)
    body = _message(addresses.remote.version, PROTOCOL, _UNIVERSE if gateway else _LINK)
    body += _packed(_DST, addresses.remote.packed) + _packed(_OIF, known[_OIF])
    body += _packed(_PREFSRC, addresses.local.packed)
    if gateway:
        body += _packed(_GATEWAY, gateway)
    lock = _packed(_LOCK, struct.pack("=I", 1 << _MTU))
    return body + _packed(_METRICS, lock + _packed(_MTU, struct.pack("=I", mtu)))


def _message(version: int, protocol: int, scope: int) -> bytes:
    family, bits = (socket.AF_INET, 32) if version == 4 else (socket.AF_INET6, 128)
    return _ROUTE.pack(family, bits, 0, 0, _MAIN, protocol, scope, _UNICAST, 0)


def _packed(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    return dict(_walk(data))


def _walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _device_mtu(index: bytes) -> int:
    name = socket.if_indextoname(struct.unpack("=I", index)[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFMTU, struct.pack("16si16x", name.encode(), 0))
    return int(struct.unpack_from("=i", answer, 16)[0])
