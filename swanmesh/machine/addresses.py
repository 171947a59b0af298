"""The addresses of this machine's interfaces, as the kernel has them (linux/rtnetlink.h, linux/if_addr.h)."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Iterator

from swanmesh.core.model import Address
from swanmesh.kernel.netlink import DONE, ERROR, messages

_NETLINK_ROUTE = 0
_NEW_ADDRESS, _GET_ADDRESSES = 20, 22
_ADDRESS, _LOCAL = 1, 2
"""IFA_ADDRESS is the peer's where a link has one, and IFA_LOCAL then our own."""
_REQUEST_DUMP = 0x1 | 0x300
_HEADER = struct.Struct("=IHHII")
_INFO = struct.Struct("=BBBBI")
"""ifaddrmsg: family, prefixlen, flags, scope, index."""
_ATTRIBUTE = struct.Struct("=HH")
_CHANGES = 0x10 | 0x100
"""Multicast groups RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR."""
_DATAGRAM = 1 << 16
_ANSWER = 2.0
"""Seconds that the kernel's answer may take; it is a matter of microseconds."""


def own_addresses() -> frozenset[Address]:
    """All addresses of all interfaces in this network namespace, loopback too. Raises OSError."""
    found: set[Address] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as sock:
        sock.settimeout(_ANSWER)
        size = _HEADER.size + _INFO.size
        sock.send(_HEADER.pack(size, _GET_ADDRESSES, _REQUEST_DUMP, 1, 0) + _INFO.pack(0, 0, 0, 0, 0))
        while True:
            for message in messages(sock.recv(_DATAGRAM)):
                if message.kind in (DONE, ERROR):
                    return frozenset(found)
                if message.kind == _NEW_ADDRESS:
                    found.update(_address(message.body))


async def address_changes() -> AsyncIterator[None]:
    """Something once it listens, and each time that addresses of interfaces come or go. Raises OSError."""
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_ROUTE) as sock:
        sock.bind((0, _CHANGES))
        while True:
            yield
            try:
                await loop.sock_recv(sock, _DATAGRAM)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more came than there was room for: then look all the more
                    raise


def _address(body: memoryview) -> Iterator[Address]:
    attributes: dict[int, bytes] = {}
    offset = _INFO.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind] = bytes(body[offset + _ATTRIBUTE.size : offset + length])
        offset += (length + 3) & ~3
    packed = attributes.get(_LOCAL) or attributes.get(_ADDRESS) or b""
    if len(packed) in (4, 16):
        yield ipaddress.ip_address(packed)
