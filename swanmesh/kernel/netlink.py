"""Netlink's XFRM messages as bytes: what is sent to the kernel, and what it answers (linux/xfrm.h).

pyroute2 0.9 knows IPsec interfaces and has no XFRM states or policies, so the few messages that are needed
are packed here. All fields are in the host's byte order but for SPIs, addresses and ports. Keys, which states
carry in attributes, are never looked at.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from socket import AF_INET, AF_INET6, IPPROTO_ESP
from typing import NamedTuple

from swanmesh.core.model import Address, AddressPair
from swanmesh.core.xfrm import Direction, XfrmPolicy, XfrmState

GROUPS = 1 << 0 | 1 << 2 | 1 << 3
"""Bits of XFRMNLGRP_ACQUIRE (1), XFRMNLGRP_SA (3) and XFRMNLGRP_POLICY (4)."""

ERROR, DONE = 2, 3
NEW_SA, DEL_SA, GET_SA = 16, 17, 18
NEW_POLICY, DEL_POLICY, GET_POLICY, UPDATE_POLICY = 19, 20, 21, 25
FLUSH_SA, FLUSH_POLICY = 28, 29
ACQUIRE = 23

_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TEMPLATE = 5
"""XFRMA_TMPL."""

_SELECTOR = struct.Struct("=16s16s2s2s2s2sHBBB3xII")
"""xfrm_selector: daddr, saddr, dport, dport_mask, sport, sport_mask, family, prefixlen_d, prefixlen_s, proto,
ifindex, user."""
_STATE = struct.Struct("=56x16s4sB99xQ24xIHB")
"""xfrm_usersa_info: daddr, spi, proto, from 176 on curlft.add_time, from 208 on reqid, family, mode."""
_PACKETS = struct.Struct("=Q")
"""xfrm_usersa_info: curlft.packets, at 168."""
_KEYED = frozenset({1, 2, 18})
"""XFRMA_ALG_AUTH, XFRMA_ALG_CRYPT, XFRMA_ALG_AEAD: a state that has none is but a reserved SPI."""
_STATE_SIZE = 224
_POLICY = struct.Struct("=96xQ40xQIIBB")
"""xfrm_userpolicy_info: lft.hard_add_expires_seconds, curlft.use_time, priority, index, dir, action."""
_POLICY_SIZE = 168
_NUMBER = struct.Struct("=IB3x")
"""The rest of xfrm_userpolicy_id behind its selector: index, dir."""
_NO_LIMITS = (2**64 - 1,) * 4
_LIMITS = struct.pack("=8Q", *_NO_LIMITS, 0, 0, 0, 0)
"""xfrm_lifetime_cfg: no limit of bytes or packets, and no end."""
_TMPL = struct.Struct("=16s4sB3xH2x16sIBBBxIII")
"""xfrm_user_tmpl: daddr, spi, proto, family, saddr, reqid, mode, share, optional, aalgos, ealgos, calgos."""
_ACQUIRE = struct.Struct("=16s8x16s40xH")
"""xfrm_user_acquire: id.daddr, saddr, sel.family."""
_TRANSPORT, _ALLOW = 0, 0
_BLOCK = 1
_ANY_ALGORITHM = 2**32 - 1
_ANYWHERE = bytes(16)


class Message(NamedTuple):
    """One message of the kernel's."""

    kind: int
    sequence: int
    body: memoryview


def messages(data: bytes | memoryview) -> Iterator[Message]:
    """The messages of one datagram. What is cut short ends it."""
    view = memoryview(data)
    offset = 0
    while offset + _HEADER.size <= len(view):
        length, kind, _, sequence, _ = _HEADER.unpack_from(view, offset)
        if length < _HEADER.size or offset + length > len(view):
            return
        yield Message(kind, sequence, view[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def errno_of(message: Message) -> int:
    """Of an ERROR: 0 is an acknowledgement."""
    return -int(struct.unpack_from("=i", message.body)[0]) if len(message.body) >= 4 else 0


def dump(kind: int, sequence: int) -> bytes:
    """Asks for all states (GET_SA) or policies (GET_POLICY)."""
    return _HEADER.pack(_HEADER.size, kind, _REQUEST | _DUMP, sequence, 0)


def state(body: memoryview) -> XfrmState | None:
    """A NEW_SA's state; None if it is cut short, of a family that has no IPsec, or but a question for one, as
    there is for a while for each host that packets go to in vain."""
    if len(body) < _STATE_SIZE:
        return None
    destination, spi, protocol, made, reqid, family, mode = _STATE.unpack_from(body)
    address = _address(family, destination)
    if address is None or spi == bytes(4):
        return None
    keyed = any(kind in _KEYED for kind, _ in _attributes(body, _STATE_SIZE))
    return XfrmState(address, spi.hex(), protocol, mode == _TRANSPORT, reqid, made if keyed else 0)


def deleted_spi(body: memoryview) -> str:
    """A DEL_SA's SPI; empty if it is cut short."""
    return bytes(body[16:20]).hex() if len(body) >= 24 else ""


def policy(body: memoryview) -> XfrmPolicy | None:
    """A NEW_POLICY's policy; None if it is cut short, of an unknown family, or a single socket's.

    The kernel does list the policies of sockets, such as those that let IKE pass, as directions from 3 on.
    """
    if len(body) < _POLICY_SIZE:
        return None
    lasts, used, priority, index, direction, action = _POLICY.unpack_from(body)
    found = _selected(body, direction, index)
    if found is None:
        return None
    reqid, optional = _template_of(body)
    return found._replace(
        allow=action == _ALLOW,
        reqid=reqid,
        priority=priority,
        optional=optional,
        lasts=lasts,
        used=used,
    )


def acquired(body: memoryview) -> tuple[Address, Address] | None:
    """Source and destination of an ACQUIRE: a packet met a policy and there is no association for it; None if
    it is cut short."""
    if len(body) < _ACQUIRE.size:
        return None
    destination, source, family = _ACQUIRE.unpack_from(body)
    local, remote = _address(family, source), _address(family, destination)
    return (local, remote) if local is not None and remote is not None else None


def deleted_policy(body: memoryview) -> XfrmPolicy | None:
    """A DEL_POLICY's, as far as it is told (xfrm_userpolicy_id), if its selector bears a mark."""
    if len(body) < _SELECTOR.size + _NUMBER.size:
        return None
    number, direction = _NUMBER.unpack_from(body, _SELECTOR.size)
    found = _selected(body, direction, number)
    return found if found is not None and found.owner else None


def _selected(body: memoryview, direction: int, number: int) -> XfrmPolicy | None:
    """What a selector and a direction say of a policy."""
    if direction > Direction.FORWARD:
        return None
    (daddr, saddr, dport, dmask, sport, smask, family, bits_d, bits_s, protocol, _, owner) = (
        _SELECTOR.unpack_from(body)
    )
    source, destination = _address(family, saddr), _address(family, daddr)
    if source is None or destination is None:
        return None
    return XfrmPolicy(
        direction=_DIRECTIONS[direction],
        source=source,
        source_bits=bits_s,
        destination=destination,
        destination_bits=bits_d,
        protocol=protocol,
        source_port=int.from_bytes(sport, "big"),
        allow=False,
        reqid=0,
        priority=0,
        number=number,
        destination_port=int.from_bytes(dport, "big"),
        source_mask=int.from_bytes(smask, "big"),
        destination_mask=int.from_bytes(dmask, "big"),
        owner=owner,
    )


_DIRECTIONS = tuple(Direction)


def restore(addresses: AddressPair, reqid: int, *, replace: bool, sequence: int) -> bytes:
    """The two policies of an association, out and in, as charon installs them but for one thing: the template
    out names no SPI, so that any state of the reqid serves, whatever charon rekeys meanwhile. Numbered
    `sequence` and `sequence + 1`, both to be acknowledged. A policy that is there already is an EEXIST,
    unless `replace`.
    """
    local, remote = addresses.local, addresses.remote
    kind = UPDATE_POLICY if replace else NEW_POLICY
    out = _policy_message(kind, sequence, Direction.OUT, local, remote, reqid)
    return out + _policy_message(kind, sequence + 1, Direction.IN, remote, local, reqid)


def socket_policy(version: int) -> bytes:
    """Of a single socket's (`IP_XFRM_POLICY`): nothing comes in but through ESP in transport mode."""
    family = AF_INET if version == 4 else AF_INET6
    selector = _SELECTOR.pack(*(_ANYWHERE, _ANYWHERE, b"", b"", b"", b"", family, 0, 0, 0, 0, 0))
    info = selector + _LIMITS + bytes(32) + struct.pack("=IIBBBB4x", 0, 0, Direction.IN, _ALLOW, 0, 0)
    return info + _TMPL.pack(
        *(_ANYWHERE, b"", IPPROTO_ESP, family, _ANYWHERE, 0, _TRANSPORT, 0, 0, *(_ANY_ALGORITHM,) * 3)
    )


def packets_of(body: memoryview) -> tuple[str, int] | None:
    """SPI of a NEW_SA's state and the packets that crossed by it; None if it is cut short."""
    if len(body) < _STATE_SIZE:
        return None
    return bytes(body[72:76]).hex(), int(_PACKETS.unpack_from(body, 168)[0])


def put(policy: XfrmPolicy, sequence: int) -> bytes:
    """Installs a policy. One with the same selector is replaced, and no packet falls between the two: both
    stand in the table for a moment (net/xfrm/xfrm_policy.c, xfrm_policy_insert)."""
    action = _ALLOW if policy.allow else _BLOCK
    limits = struct.pack("=8Q", *_NO_LIMITS, 0, policy.lasts, 0, 0)
    info = limits + bytes(32) + struct.pack("=IIBBBB4x", policy.priority, 0, policy.direction, action, 0, 0)
    family = AF_INET6 if policy.source.version == 6 else AF_INET
    template = _template(family, policy.reqid, optional=policy.optional) if policy.reqid else b""
    return _message(UPDATE_POLICY, sequence, _selector(policy) + info + template)


def drop(policy: XfrmPolicy, sequence: int) -> bytes:
    """Deletes the policy with this selector: xfrm_userpolicy_id, which has index and direction behind it."""
    return _message(DEL_POLICY, sequence, _selector(policy) + _NUMBER.pack(0, policy.direction))


def changes(put_: Iterable[XfrmPolicy], drop_: Iterable[XfrmPolicy]) -> list[bytes]:
    """The messages that install the ones and delete the others, numbered from 1."""
    calls = [*((put, policy) for policy in put_), *((drop, policy) for policy in drop_)]
    return [call(policy, number) for number, (call, policy) in enumerate(calls, 1)]


def _selector(policy: XfrmPolicy) -> bytes:
    ports = (policy.destination_port, policy.destination_mask, policy.source_port, policy.source_mask)
    return _SELECTOR.pack(
        policy.destination.packed,
        policy.source.packed,
        *(port.to_bytes(2, "big") for port in ports),
        AF_INET6 if policy.source.version == 6 else AF_INET,
        policy.destination_bits,
        policy.source_bits,
        policy.protocol,
        0,
        policy.owner,
    )


def _message(kind: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK, sequence, 0) + body


def _policy_message(
    kind: int, sequence: int, direction: Direction, source: Address, destination: Address, reqid: int
) -> bytes:
    family = AF_INET6 if source.version == 6 else AF_INET
    bits = source.max_prefixlen
    selector = _SELECTOR.pack(
        *(destination.packed, source.packed, b"", b"", b"", b"", family, bits, bits, 0, 0, 0)
    )
    # get_priority in libcharon plugins/kernel_netlink/kernel_netlink_ipsec.c, for POLICY_PRIORITY_DEFAULT:
    # the same in 5.9.8 and 6.0.6.
    priority = 400_000 - 2 * bits * 512 - 1
    info = selector + _LIMITS + bytes(32) + struct.pack("=IIBBBB4x", priority, 0, direction, _ALLOW, 0, 0)
    return _message(kind, sequence, info + _template(family, reqid, optional=False))


def _template(family: int, reqid: int, *, optional: bool) -> bytes:
    """The attribute that asks for ESP in transport mode, by any state of the reqid."""
    algorithms = (_ANY_ALGORITHM,) * 3
    template = _TMPL.pack(
        *(_ANYWHERE, b"", IPPROTO_ESP, family, _ANYWHERE, reqid, _TRANSPORT, 0, optional, *algorithms)
    )
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(template), _TEMPLATE) + template


def _template_of(body: memoryview) -> tuple[int, bool]:
    """The reqid of a policy's ESP template in transport mode, 0 if none; and whether it is optional."""
    for kind, offset in _attributes(body, _POLICY_SIZE):
        if kind == _TEMPLATE and len(body) >= offset + _TMPL.size:
            fields = _TMPL.unpack_from(body, offset)
            protocol, reqid, mode, optional = fields[2], fields[5], fields[6], fields[8]
            return (
                (int(reqid), bool(optional)) if protocol == IPPROTO_ESP and mode == _TRANSPORT else (0, False)
            )
    return 0, False


def _attributes(body: memoryview, offset: int) -> Iterator[tuple[int, int]]:
    """The kind of each and where its value begins. What is cut short ends it."""
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > len(body):
            return
        yield kind, offset + _ATTRIBUTE.size
        offset += (length + 3) & ~3


def _address(family: int, packed: bytes) -> Address | None:
    if family == AF_INET:
        return ipaddress.IPv4Address(packed[:4])
    if family == AF_INET6:
        return ipaddress.IPv6Address(packed)
    return None
