"""Sockets that take nothing but what came through ESP, whatever the host's policies let in."""

from __future__ import annotations

import socket

from swanmesh.kernel.netlink import socket_policy

_XFRM_POLICY = {
    socket.AF_INET: (socket.IPPROTO_IP, 17),  # IP_XFRM_POLICY, linux/in.h
    socket.AF_INET6: (socket.IPPROTO_IPV6, 35),  # IPV6_XFRM_POLICY, linux/in6.h
}


def require_esp(sock: socket.socket) -> None:
    """From now on, and for what a listening socket accepts (xfrm_sk_clone_policy in net/xfrm/xfrm_policy.c).

    In transport mode the kernel drops what a state brings from other addresses than its own; so who stands in
    `getpeername` has proved that it is. Raises OSError: it takes CAP_NET_ADMIN."""
    level, option = _XFRM_POLICY[socket.AddressFamily(sock.family)]
    sock.setsockopt(level, option, socket_policy(6 if sock.family == socket.AF_INET6 else 4))
