"""What describes a peer, checked: names and addresses; and which peer is meant, since people ask for `web12`
or for an address, and mistype both.

Names are host names by RFC 1123 §2.1. They become identities in certificates, names of connections in charon,
file names and labels, so nothing uses one that has not passed `check_name`.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from swanmesh.core.model import Address, InvalidInput, Peer, Problem, shown
from swanmesh.core.settings.exemptions import EXEMPTIONS, Exemption
from swanmesh.core.settings.policy import CHOICE, Policy, check_policy
from swanmesh.core.settings.setting import Misfit

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_LISTED = 5
"""Names that an error lists."""


def check_name(value: object) -> str:
    """The host name in lower case. Raises ValueError with what is wrong with it.

    A name whose last label is a number is refused: it reads as an IPv4 address, and charon would take it for
    an identity of that kind (RFC 1123 §2.1; identification_create_from_string).
    """
    if not isinstance(value, str):
        raise ValueError("must be a host name in quotes")
    name = value.lower()
    if not name or len(name) > 253:
        raise ValueError("must have 1 to 253 characters")
    labels = name.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(
                "is no host name: letters, digits and hyphens, in parts of 1 to 63 characters between dots"
            )
    if labels[-1].isdigit():
        raise ValueError("must not end in a number: it would read as an address")
    return name


def check_address(value: object) -> Address:
    """One unicast address that a peer can have. Raises ValueError with what is wrong with it."""
    if not isinstance(value, str):
        raise ValueError("must be an address in quotes")
    if "/" in value:
        raise ValueError("must be a single address, not a block")
    if "%" in value:
        raise ValueError("must have no zone: link-local addresses mean nothing on another link")
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("is neither an IPv4 nor an IPv6 address") from None
    for wrong, word in (
        (address.is_unspecified, "unspecified"),
        (address.is_loopback, "a loopback address"),
        (address.is_multicast, "a multicast address"),
        (address.is_link_local, "a link-local address"),
        (address == _BROADCAST, "the broadcast address"),
        (
            isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None,
            "an IPv4-mapped one",
        ),
    ):
        if wrong:
            raise ValueError(f"is {word}")
    return address


def parse_policy(policy: object, source: str, problems: list[Problem]) -> Policy | None:
    """The policy of a peer's or a block's own, if one is given. What is wrong with it is added to
    `problems`."""
    if policy is None:
        return None
    try:
        return check_policy(policy)
    except ValueError as error:
        remedy = f"write {CHOICE}, or leave it out"
        problems.append(Problem(source, "policy", shown(policy), str(error), remedy))
        return None


def parse_peer(
    name: object, addresses: object, policy: object = None, exempt: object = None, *, source: str
) -> Peer:
    """The peer that a file or a command line describes. Raises InvalidInput with every problem found."""
    problems: list[Problem] = []
    good_name = ""
    try:
        good_name = check_name(name)
    except ValueError as error:
        problems.append(
            Problem(source, "name", shown(name), str(error), "give the name in the peer's certificate")
        )
    good = parse_addresses(addresses, "addresses", source, problems)
    good_policy = parse_policy(policy, source, problems)
    exemptions: tuple[Exemption, ...] | None = None
    if exempt is not None:
        try:
            exemptions = EXEMPTIONS.read(exempt)
        except Misfit as misfit:
            value = misfit.value if misfit.place else exempt
            problems.append(
                Problem(source, f"exempt{misfit.place}", shown(value), misfit.message, misfit.remedy)
            )
    if problems:
        raise InvalidInput(*problems)
    return Peer(name=good_name, addresses=good, policy=good_policy, exempt=exemptions, source=source)


def parse_addresses(value: object, key: str, source: str, problems: list[Problem]) -> tuple[Address, ...]:
    """The addresses of a host or a peer, in order; adds what is wrong with them to `problems`."""
    if not isinstance(value, list | tuple) or not value:
        remedy = 'give a list of one or more, such as [203.0.113.12, "2001:db8::c"]'
        problems.append(Problem(source, key, shown(value), "must be a list of addresses", remedy))
        return ()
    good: dict[Address, None] = {}
    for index, item in enumerate(value):
        place = f"{key}[{index}]"
        try:
            address = check_address(item)
        except ValueError as error:
            remedy = "give an address that the other hosts reach it at"
            problems.append(Problem(source, place, shown(item), str(error), remedy))
            continue
        if address in good:
            problems.append(Problem(source, place, shown(item), "stands twice", "leave one out"))
        good[address] = None
    return tuple(good)


def cut_off(
    peers: Iterable[Peer],
    needed: Mapping[Address, str],
    policy: Policy,
    exempt: tuple[Exemption, ...],
) -> Iterator[Problem]:
    """Which peers are at addresses that this host needs, or that people are logged in from, and would be
    reached encrypted alone: a slip in a file locks an administrator out. `needed` says what each address is;
    `policy` and `exempt` are the host's own."""
    for peer in peers:
        exemptions = exempt if peer.exempt is None else peer.exempt
        if exemptions or not (peer.policy or policy).meaning.closed:
            continue
        for index, address in enumerate(peer.addresses):
            if what := needed.get(address):
                message = f"is {what}, and is reached encrypted alone: is it {peer.name}?"
                remedy = "correct it, or let pass what it takes: `exempt: [tcp/22]`, or `policy: prefer`"
                yield Problem(peer.source, f"addresses[{index}]", str(address), message, remedy)


class NoSuchPeer(Exception):
    """Nobody is called so, or several are. `asked` is what was asked for; the text says what to do."""

    def __init__(self, asked: str, message: str) -> None:
        super().__init__(message)
        self.asked = asked


def find_peer(asked: str, peers: Collection[Peer]) -> Peer:
    """The one peer with this name, one of its addresses, or a name that begins with these labels.

    Raises NoSuchPeer with those that may have been meant.
    """
    return find_peers(asked, peers)[0]


def find_peers(asked: str, peers: Collection[Peer]) -> list[Peer]:
    """The same; a host of blocks is met at each of its addresses by itself, and meant with all of them by its
    name."""
    wanted = asked.strip().rstrip(".").lower()
    found = [peer for peer in peers if peer.title == wanted] or _by_address(wanted, peers)
    found = found or [peer for peer in peers if peer.title.startswith(f"{wanted}.")]
    titles = list(dict.fromkeys(peer.title for peer in found))
    if len(titles) == 1:
        return found
    if found:
        names = _listed(titles)
        raise NoSuchPeer(asked, f"{shown(asked)} may be any of {names}; give more of the name")
    near = _listed(_near(wanted, peers))
    remedy = f"did you mean {near}?" if near else "see `swanmesh status` for the names known"
    raise NoSuchPeer(asked, f"no such peer: {shown(asked)}; {remedy}")


def _by_address(wanted: str, peers: Collection[Peer]) -> list[Peer]:
    try:
        address = ipaddress.ip_address(wanted)
    except ValueError:
        return []
    return [peer for peer in peers if address in peer.addresses]


def _near(wanted: str, peers: Collection[Peer]) -> list[str]:
    """Names that are spelt alike: first parts with a first part, since in whole names the domain, which all
    share, makes any two look alike."""
    if "." in wanted:
        return difflib.get_close_matches(wanted, [peer.title for peer in peers], n=3, cutoff=0.88)
    short = {peer.title.partition(".")[0]: peer.title for peer in peers}
    return [short[word] for word in difflib.get_close_matches(wanted, short, n=3)]


def _listed(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
