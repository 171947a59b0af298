"""`swanmesh status`: how every peer stands, and why one is not up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from swanmesh.cli.output import amount, for_people, plural, say, say_json, span, table
from swanmesh.cli.setup import Setup, complete_peer, json_option, pass_setup

if TYPE_CHECKING:
    from swanmesh.control.protocol import PeerStatus, StatusReply

_LAID_OUT = 200
"""Peers that are laid out for the terminal's width; rich takes a second and more for a thousand rows."""
HEADINGS = ("PEER", "STATE", "FOR", "ADDRESSES", "IN", "OUT", "REASON")


@click.command()
@click.argument("peers", nargs=-1, metavar="[PEER…]", shell_complete=complete_peer)
@json_option
@pass_setup
def status(setup: Setup, peers: tuple[str, ...], as_json: bool) -> None:
    """Show this host, charon and the peers: all of them, or those named."""
    client = setup.client
    if as_json:
        say_json(client.status_json(peers))
        return
    reply = client.status(peers)
    now = time.time()
    if for_people() and len(reply.peers) <= _LAID_OUT:
        # rich takes longer to import than all else here: only where it is seen.
        from swanmesh.cli.terminal import show

        show(reply, now)
        return
    say(heading(reply, now))
    if reply.peers:
        say(*table(HEADINGS, [row(peer, now) for peer in reply.peers]))
    say(*footing(reply))


def heading(reply: StatusReply, now: float) -> str:
    """This host and its charon in one line."""
    host, charon = reply.host, reply.charon
    if charon.reachable:
        daemon = f"charon {charon.version} for {span(now - charon.since)}"
    else:
        daemon = f"charon NOT REACHABLE for {span(now - charon.since)}"
        daemon += f" ({charon.reason})" if charon.reason else ""
    addresses = ", ".join(host.addresses)
    service = f"swanmesh {host.swanmesh} for {span(now - host.started)}"
    return f"{host.name} ({addresses}), policy {host.policy}; {service}; {daemon}"


def row(peer: PeerStatus, now: float) -> tuple[str, ...]:
    """One peer under HEADINGS."""
    received = sum(association.bytes_in for association in peer.associations)
    sent = sum(association.bytes_out for association in peer.associations)
    return (
        peer.name,
        peer.state,
        span(now - peer.since),
        ", ".join(peer.addresses),
        amount(received),
        amount(sent),
        "; ".join(_reasons(peer, now)),
    )


def _reasons(peer: PeerStatus, now: float) -> Iterator[str]:
    if peer.reason:
        yield peer.reason
    if peer.state != "up" and len(peer.pairs) > 1:
        up = sum(pair.state == "up" for pair in peer.pairs)
        yield f"{up} of {len(peer.pairs)} address pairs are up"
    if peer.next_attempt is not None and peer.next_attempt > now:
        yield f"next attempt in {span(peer.next_attempt - now)}"


def footing(reply: StatusReply) -> list[str]:
    """The sum, and what is wrong with the files."""
    counts: dict[str, int] = {}
    for peer in reply.peers:
        counts[peer.state] = counts.get(peer.state, 0) + 1
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    lines = [f"{plural(len(reply.peers), 'peer')}: {states}" if states else "no peers"]
    lines.extend(f"problem: {problem}" for problem in reply.problems)
    return lines
