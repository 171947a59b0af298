"""What is told of one peer: in the table of `status`, and all that is known for `status PEER`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from swanmesh.cli.output import amount, for_people, plural, span, wrap

if TYPE_CHECKING:
    from swanmesh.control.reports import Association, BlockStatus, ClearText, PairStatus, PeerStatus

_LABEL = 14


def detail(peer: PeerStatus, now: float) -> Iterator[str]:
    """Its lines, the most important first."""
    yield f"{peer.name}: {peer.state} for {span(now - peer.since)}"
    yield from _field("why", "; ".join(reasons(peer, now)))
    yield from _field("addresses", ", ".join(peer.addresses))
    yield from _field("policy", peer.policy)
    yield from _field(
        "exempt", ", ".join(peer.exempt) + " in clear, if it exempts the same" if peer.exempt else ""
    )
    yield from _field("clear text", clear_text(peer.clear, now))
    if peer.block:
        yield from _field("met under", f"the block {peer.block}")
    for version in peer.lacks:
        yield from _field(f"IPv{version}", lacking(version))
    if peer.certificate_ends is not None:
        left = peer.certificate_ends - now
        yield from _field("certificate", f"for another {span(left)}" if left > 0 else "HAS ENDED")
    received, sent = traffic(peer)
    yield from _field("traffic", f"received {amount(received)}, sent {amount(sent)}")
    for event in peer.history:
        at = datetime.fromtimestamp(event.time).astimezone().isoformat(sep=" ", timespec="seconds")
        yield from _field(event.kind, f"{at}  {event.reason}".rstrip())
    for pair in peer.pairs:
        yield from _pair(pair, peer, now)
    yield ""


def clear_text(clear: ClearText | None, now: float) -> str:
    """When packets in clear were refused, or passed, and how many."""
    if clear is None:
        return ""
    ways = (("out", clear.out), ("in", clear.into))
    last = ", ".join(f"{way} {span(now - at)} ago" for way, at in ways if at is not None)
    verb = "refused" if clear.refused else "passed"
    counts = (("out", clear.packets_out), ("in", clear.packets_in))
    counted = ", ".join(f"{plural(count, 'packet')} {way}" for way, count in counts if count)
    return "; ".join(filter(None, (f"last {verb}: {last}" if last else "", counted)))


def block_line(block: BlockStatus) -> str:
    """A block of addresses in one line."""
    strangers = f", {plural(block.strangers, 'stranger')}" if block.strangers else ""
    asked = f", {block.asked} being asked" if block.asked else ""
    members = f"{block.up} of {plural(block.members, 'member')} up"
    return f"block {block.name}: {block.cidr}, policy {block.policy}: {members}{asked}{strangers}"


def block_detail(block: BlockStatus, now: float) -> Iterator[str]:
    """A block with the hosts in it that are no members; its members are peers like others."""
    yield block_line(block)
    yield from _field("except", ", ".join(block.exceptions))
    for each in block.listed:
        again = f"; asked again from {span(each.again - now)} on" if each.again > now else ""
        asked = f"asked {each.times} times: " if each.times > 1 else ""
        yield from _field(each.address, f"no member: {asked}{each.reason}{again}")
    yield ""


def lacking(version: int) -> str:
    """What it means that no address of a family is known of a peer."""
    return f"no address of it is known: what crosses over IPv{version} is in clear"


def reasons(peer: PeerStatus, now: float) -> Iterator[str]:
    """Why it is not up, and what comes next."""
    if peer.reason:
        yield peer.reason
    if peer.violation:
        yield f"NOT AS AGREED, and ended ({peer.violations} times lately): {peer.violation}"
    if peer.state != "up" and len(peer.pairs) > 1:
        up = sum(pair.state == "up" for pair in peer.pairs)
        yield f"{up} of {len(peer.pairs)} address pairs are up"
    if peer.next_attempt is not None and peer.next_attempt >= now + 1:
        yield f"next attempt in {span(peer.next_attempt - now)}"


def traffic(peer: PeerStatus) -> tuple[int, int]:
    """Bytes received and sent: all that the service has counted, and at least what stands now has."""
    return (
        max(peer.traffic.bytes_in, sum(each.bytes_in for each in peer.associations)),
        max(peer.traffic.bytes_out, sum(each.bytes_out for each in peer.associations)),
    )


def _pair(pair: PairStatus, peer: PeerStatus, now: float) -> Iterator[str]:
    yield ""
    yield f"  {pair.local} to {pair.remote}: {pair.state} for {span(now - pair.since)}"
    yield from _field("connection", pair.connection)
    if pair.reason not in peer.reason:
        yield from _field("why", pair.reason)
    if pair.attempts:
        yield from _field("attempts", f"{pair.attempts} in a row came to nothing")
    if pair.next_attempt is not None:
        left = pair.next_attempt - now
        yield from _field("next attempt", f"in {span(left)}" if left >= 1 else "now")
    for each in peer.associations:
        if (each.local, each.remote) == (pair.local, pair.remote):
            yield from _association(each)


def _association(each: Association) -> Iterator[str]:
    begun = "begun here" if each.initiator else "begun by the peer"
    yield from _field(f"IKE_SA #{each.ike_id}", _joined(begun, _age(each.ike_age), each.ike_algorithm))
    if each.child_id is None:
        yield from _field("CHILD_SA", f"none; the IKE_SA is {each.state}")
        return
    rekey = "" if each.rekey_in is None else f"rekeyed in {span(each.rekey_in)}"
    encap = "in UDP" if each.encap else ""
    shape = _joined(each.state, each.mode, encap, _age(each.child_age), rekey, each.esp_algorithm)
    yield from _field(f"CHILD_SA #{each.child_id}", shape if each.works else f"DOES NOT WORK: {shape}")
    yield from _field("certificate", each.certificate)
    yield from _field("segmentation", each.segmentation)
    yield from _field("in", _direction(each.spi_in, each.bytes_in, each.packets_in))
    yield from _field("out", _direction(each.spi_out, each.bytes_out, each.packets_out))


def _direction(spi: str, size: int, packets: int) -> str:
    return f"SPI {spi}, {amount(size)} in {plural(packets, 'packet')}"


def _age(seconds: float | None) -> str:
    return "" if seconds is None else f"{span(seconds)} old"


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _field(label: str, text: str) -> Iterator[str]:
    """One line under a label; for people as many as it takes. Nothing if there is nothing to say."""
    if not text:
        return
    first, *more = wrap(text, indent=_LABEL + 6) if for_people() else [text]
    yield f"    {label:<{_LABEL}}  {first.strip()}"
    yield from more
