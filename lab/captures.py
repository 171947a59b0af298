"""What crosses a cable, packet by packet, and which of it was in clear."""

from __future__ import annotations

import collections
import ipaddress
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.namespaces import Namespace
from lab.waiting import wait_until

Kind = Literal["esp", "ike", "local", "clear"]
"""`local` is what a link needs to work: ARP, neighbour discovery, multicast listener reports."""

_SNAPLEN = 128
_PCAP_HEADER = 24
_RECORD = struct.Struct("=IIII")
_MARKER_TYPE = 0x88B5
"""An EtherType for local experiments (IEEE 802): no other frame of the lab has it."""
_MARKER_INTERVAL = 0.25
_IKE_PORTS = {500, 4500}
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")
_NEIGHBOUR_DISCOVERY = range(133, 138)
_LISTENER_REPORTS = (130, 131, 132, 143)


@dataclass(frozen=True)
class Packet:
    """One frame."""

    kind: Kind
    source: str
    destination: str
    protocol: int
    """IP protocol number; 0 where the frame is not IP."""
    detail: str
    spi: str = ""
    """Of ESP: eight hexadecimal digits, as charon shows them."""


class Capture:
    """tcpdump on one device. Nothing that crosses between construction and `stop` is missed:
    both ends of that time are marked by a frame of our own that tcpdump must show, and a packet that
    the kernel dropped for want of room makes `stop` fail."""

    def __init__(self, namespace: Namespace, device: str, path: Path) -> None:
        self._namespace = namespace
        self.device = device
        self._path = path
        self._phase = self._read = 0
        self._sent = 0.0
        self._packets: list[Packet] | None = None
        # No --immediate-mode: woken for each packet, tcpdump costs more than the traffic. -U, since what it
        # does at SIGUSR2 in its stead, in the midst of writing a packet, now and then garbles the file.
        command = ("tcpdump", "-n", "-U", "-s", str(_SNAPLEN), "-B", "8192")
        with namespace.entered():
            self._process = subprocess.Popen(
                (*command, "-i", device, "-w", str(path)),
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        self._await_marker(f"tcpdump captures on {device} of {namespace.name}")

    def stop(self) -> list[Packet]:
        """Ends the capture and returns every packet since its start, except our markers."""
        if self._packets is None:
            self._await_marker(f"tcpdump on {self.device} has written what it saw")
            self._process.terminate()
            said = self._process.communicate(timeout=20)[1]
            if "\n0 packets dropped by kernel" not in said:
                raise RuntimeError(f"the capture on {self.device} is not complete: {said.strip()}")
            self._packets = [packet for frame in self._frames() if (packet := classify(frame))]
        return self._packets

    def of_kind(self, kind: Kind) -> list[Packet]:
        """The packets of one kind; ends the capture."""
        return [packet for packet in self.stop() if packet.kind == kind]

    @property
    def clear(self) -> list[Packet]:
        """What is neither ESP nor IKE nor needed by the link; ends the capture."""
        return self.of_kind("clear")

    @property
    def esp(self) -> list[Packet]:
        """ESP, also inside UDP; ends the capture."""
        return self.of_kind("esp")

    def counts(self) -> dict[Kind, int]:
        """How many of each kind; ends the capture."""
        return dict(collections.Counter(packet.kind for packet in self.stop()))

    def kill(self) -> None:
        """Ends tcpdump without looking at what it saw."""
        self._process.kill()
        self._process.wait()

    def _await_marker(self, why: str) -> None:
        self._phase += 1
        self._read = 0
        self._sent = 0.0
        wait_until(self._marker_seen, 60, why)

    @property
    def _marker(self) -> bytes:
        return b"swanmesh lab %4d" % self._phase

    def _marker_seen(self) -> bool:
        if self._process.poll() is not None:
            said = self._process.stderr.read() if self._process.stderr else ""
            raise RuntimeError(f"tcpdump on {self.device} of {self._namespace.name} ended: {said.strip()}")
        # Again and again: the first may come before tcpdump has opened the device.
        if time.monotonic() > self._sent + _MARKER_INTERVAL:
            self._send_marker()
        with self._path.open("rb") as file:
            file.seek(max(0, self._read - len(self._marker)))
            new = file.read()
            self._read = file.tell()
        return self._marker in new

    def _send_marker(self) -> None:
        self._sent = time.monotonic()
        frame = b"\xff" * 6 + bytes(6) + struct.pack("!H", _MARKER_TYPE) + self._marker.ljust(46, b"\0")
        with self._namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as port:
            port.bind((self.device, 0))
            port.send(frame)

    def _frames(self) -> Iterator[bytes]:
        data = self._path.read_bytes()
        offset = _PCAP_HEADER
        while offset + _RECORD.size <= len(data):
            length = _RECORD.unpack_from(data, offset)[2]
            offset += _RECORD.size
            yield data[offset : offset + length]
            offset += length


def classify(frame: bytes) -> Packet | None:
    """Says what an Ethernet frame is, from its outermost headers; None for a capture's own marker."""
    if len(frame) < 14:
        return Packet("clear", "", "", 0, "a frame without an Ethernet header")
    ethertype = int.from_bytes(frame[12:14], "big")
    if ethertype == _MARKER_TYPE:
        return None
    if ethertype == 0x0800:
        return _ipv4(frame[14:])
    if ethertype == 0x86DD:
        return _ipv6(frame[14:])
    if ethertype == 0x0806:
        return Packet("local", "", "", 0, "arp")
    return Packet("clear", "", "", 0, f"EtherType {ethertype:#06x}")


def _ipv4(packet: bytes) -> Packet:
    header = (packet[0] & 15) * 4
    source, destination = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    kind, detail, spi = _payload(packet[9], packet[header:])
    if packet[9] == socket.IPPROTO_IGMP:
        kind, detail = "local", "igmp"
    return Packet(kind, source, destination, packet[9], detail, spi)


def _ipv6(packet: bytes) -> Packet:
    source = socket.inet_ntop(socket.AF_INET6, packet[8:24])
    destination = socket.inet_ntop(socket.AF_INET6, packet[24:40])
    protocol, payload = packet[6], packet[40:]
    if protocol == socket.IPPROTO_HOPOPTS:  # multicast listener reports carry a router alert
        protocol, payload = payload[0], payload[(payload[1] + 1) * 8 :]
    kind, detail, spi = _payload(protocol, payload)
    if protocol == socket.IPPROTO_ICMPV6 and payload:
        if payload[0] in _NEIGHBOUR_DISCOVERY or payload[0] in _LISTENER_REPORTS:
            kind = "local"
        detail = f"icmpv6 type {payload[0]}"
    elif kind == "clear" and ipaddress.ip_address(source) in _LINK_LOCAL:
        kind = "local"
    return Packet(kind, source, destination, protocol, detail, spi)


def _payload(protocol: int, payload: bytes) -> tuple[Kind, str, str]:
    """Kind, detail, and the SPI if it is ESP."""
    if protocol == socket.IPPROTO_ESP:
        return "esp", "esp", payload[:4].hex()
    if protocol == socket.IPPROTO_UDP and len(payload) >= 8:
        ports = struct.unpack("!HH", payload[:4])
        if _IKE_PORTS.issuperset(ports):
            # RFC 3948: on port 4500 four zero bytes tell IKE from ESP.
            encapsulated = 4500 in ports and payload[8:12] not in (b"\0" * 4, b"")
            if encapsulated and len(payload) > 9:
                return "esp", "esp in udp", payload[8:12].hex()
            return "ike", "ike", ""
        return "clear", f"udp {ports[0]} > {ports[1]}", ""
    if protocol == socket.IPPROTO_TCP and len(payload) >= 4:
        ports = struct.unpack("!HH", payload[:4])
        return "clear", f"tcp {ports[0]} > {ports[1]}", ""
    return "clear", f"protocol {protocol}", ""
