"""IPsec states of a kernel, read over netlink, and what it counts: no process to start."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.namespaces import Namespace

# include/uapi/linux/xfrm.h and netlink.h
_NETLINK_XFRM = 6
_XFRM_MSG_GETSA = 0x12
_XFRM_MSG_NEWSA = 0x10
_NLM_F_DUMP_REQUEST = 0x301
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_HEADER = struct.Struct("=IHHII")
_SELECTOR_LENGTH = 56
_STATE = struct.Struct("=16s4sBxxx16s")
"""The start of an xfrm_usersa_info after its selector: destination, SPI, protocol, source."""
_STATE_TAIL = struct.Struct("=IIHBBB")
"""seq, reqid, family, mode, replay_window, flags."""
_STATE_TAIL_OFFSET = _SELECTOR_LENGTH + 24 + 16 + 64 + 32 + 12
_STATE_LENGTH = 224
_ATTRIBUTE = struct.Struct("=HH")
_XFRMA_ALG_AEAD = 18
_TRANSPORT = 0


@dataclass(frozen=True, order=True)
class XfrmState:
    """One ESP state, without its key."""

    source: str
    destination: str
    spi: str
    """Eight hexadecimal digits, as charon shows them."""
    reqid: int
    transport: bool
    algorithm: str
    """In the kernel's words, such as rfc4106(gcm(aes))."""


def xfrm_states(namespace: Namespace) -> list[XfrmState]:
    """The ESP states that `namespace` holds and that can carry packets (larval ones have no key yet)."""
    with (
        namespace.entered(),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM) as netlink,
    ):
        netlink.bind((0, 0))
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        netlink.send(_HEADER.pack(_HEADER.size, _XFRM_MSG_GETSA, _NLM_F_DUMP_REQUEST, 1, 0))
        return sorted(_replies(netlink))


def dropped_early(namespace: Namespace) -> int:
    """Packets that came on an SPI that charon had asked for while its state was not installed yet."""
    with namespace.entered():  # net/xfrm/xfrm_input.c; Documentation/networking/xfrm_proc.rst
        lines = Path("/proc/thread-self/net/xfrm_stat").read_text().splitlines()
    return int(dict(line.split() for line in lines)["XfrmAcquireError"])


def _replies(netlink: socket.socket) -> Iterator[XfrmState]:
    while True:
        data = netlink.recv(1 << 17)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
            body = data[offset + _HEADER.size : offset + length]
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise OSError(
                    -struct.unpack_from("=i", body)[0], "the kernel refused to list its IPsec states"
                )
            state = _decode(body) if kind == _XFRM_MSG_NEWSA else None
            if state is not None:
                yield state
            offset += (length + 3) & ~3


def _decode(body: bytes) -> XfrmState | None:
    destination, spi, protocol, source = _STATE.unpack_from(body, _SELECTOR_LENGTH)
    _, reqid, family, mode, _, _ = _STATE_TAIL.unpack_from(body, _STATE_TAIL_OFFSET)
    algorithm = _aead(body)
    if protocol != socket.IPPROTO_ESP or algorithm is None:
        return None
    size = 16 if family == socket.AF_INET6 else 4
    return XfrmState(
        source=str(ipaddress.ip_address(source[:size])),
        destination=str(ipaddress.ip_address(destination[:size])),
        spi=spi.hex(),
        reqid=reqid,
        transport=mode == _TRANSPORT,
        algorithm=algorithm,
    )


def _aead(body: bytes) -> str | None:
    offset = _STATE_LENGTH
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if kind == _XFRMA_ALG_AEAD:
            return body[offset + _ATTRIBUTE.size :].partition(b"\0")[0].decode()
        if length < _ATTRIBUTE.size:
            break
        offset += (length + 3) & ~3
    return None
