"""DER that was meant for something else: a value here and there is changed, taken away, repeated or moved."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from random import Random

from tests.unit.pki.certify import der

_TAGS = (1, 2, 3, 4, 5, 6, 9, 10, 12, 0x13, 0x16, 0x17, 0x18, 0x1C, 0x1E, 0x30, 0x31, *range(0x80, 0x88))
_TAGS_MORE = (0xA0, 0xA1, 0xA3, 0xA4)
_VALUES = (
    b"",
    bytes(3),
    b"\xff" * 21,
    b"\x80" + bytes(19),
    b"99991231235959Z",
    b"000000000000Z",
    b"700101000000Z",
    b"*.mesh.example",
    b"web1\0.mesh.example",
    b"\xc3\x28" * 3,
    b"x" * 5000,
)


@dataclass
class Node:
    """One value: its content, or the values in it."""

    tag: int
    content: bytes | list[Node]
    bits: bool = False
    """A BIT STRING that holds values."""

    def encoded(self) -> bytes:
        if isinstance(self.content, bytes):
            return der(self.tag, self.content)
        inside = b"".join(node.encoded() for node in self.content)
        return der(self.tag, b"\0" + inside if self.bits else inside)


def parse(data: bytes) -> list[Node] | None:
    """The values in these bytes; None if they are none."""
    nodes, at = [], 0
    while at < len(data):
        head = _head(data, at)
        if head is None:
            return None
        tag, start, end = head
        nodes.append(_node(tag, data[start:end]))
        at = end
    return nodes


def _head(data: bytes, at: int) -> tuple[int, int, int] | None:
    if at + 2 > len(data):
        return None
    size, start = data[at + 1], at + 2
    if size & 0x80:
        octets = size & 0x7F
        if not 0 < octets <= 4:
            return None
        size, start = int.from_bytes(data[start : start + octets], "big"), start + octets
    return (data[at], start, start + size) if start + size <= len(data) else None


def _node(tag: int, content: bytes) -> Node:
    bits = tag == 0x03 and content[:1] == b"\0"
    inside = parse(content[1:] if bits else content) if bits or tag == 0x04 or tag & 0x20 else None
    return Node(tag, inside, bits) if inside else Node(tag, content)


def mutated(data: bytes, random: Random) -> bytes:
    """The same with one to three changes."""
    roots = copy.deepcopy(parse(data)) or []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        everywhere = list(_all(roots))
        if everywhere:
            _change(everywhere, random)
    return b"".join(node.encoded() for node in roots)


def _all(nodes: list[Node]) -> list[tuple[list[Node], Node]]:
    found = []
    for node in nodes:
        found.append((nodes, node))
        if isinstance(node.content, list):
            found += _all(node.content)
    return found


def _change(everywhere: list[tuple[list[Node], Node]], random: Random) -> None:
    siblings, node = random.choice(everywhere)
    match random.randrange(7):
        case 0 if isinstance(node.content, bytes) and node.content:
            changed = bytearray(node.content)
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
            node.content = bytes(changed)
        case 0 | 1:
            node.tag = random.choice((*_TAGS, *_TAGS_MORE))
        case 2:
            siblings.remove(node)
        case 3:
            siblings.insert(random.randrange(len(siblings) + 1), copy.deepcopy(node))
        case 4:
            other = copy.deepcopy(random.choice(everywhere)[1])
            node.tag, node.content, node.bits = other.tag, other.content, other.bits
        case 5:
            node.content = random.choice(_VALUES)
        case 6:
            siblings.insert(0, Node(0x30, []))
