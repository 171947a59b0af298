"""`swanmesh status`: how every peer stands, and why one is not up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from swanmesh.cli.detail import block_detail, block_line, detail, reasons, traffic
from swanmesh.cli.failures import ExitStatus
from swanmesh.cli.output import (
    amount,
    for_people,
    paint,
    plural,
    safe,
    say,
    say_json,
    span,
    table,
    width,
    wrap,
    write,
)
from swanmesh.cli.policy_report import notices
from swanmesh.cli.setup import Setup, complete_peer, json_option, pass_setup

if TYPE_CHECKING:
    from swanmesh.control.reports import PeerStatus, StatusReply

ORDER = {"down": "red", "connecting": "yellow", "disabled": "blue", "up": "green"}
"""States in the order that they are shown in, with their colours: what needs a look comes first."""
_STALE = 3.0
"""Seconds from which on the age of bytes and packets is told."""
_NAMED = 3
"""Peers that --check names."""


@click.command()
@click.argument("peers", nargs=-1, metavar="[PEER…]", shell_complete=complete_peer)
@click.option("--check", is_flag=True, help="One line for monitoring; see below.")
@json_option
@pass_setup
def status(setup: Setup, peers: tuple[str, ...], check: bool, as_json: bool) -> int:
    """Show this host, charon and the peers; or all that is known of those named.

    PEER is a name, the first part of one (web12), or an address. Peers that are not up come first.

    --check prints one line. Its exit status is 0 if charon answers, all peers (or those named) are up, none
    did lately what was not agreed, and no file has a mistake; 1 if not; 3 if the service is not reachable or
    does not answer. A peer that the policy leaves out counts for nothing; one taken `down` counts as not up.
    """
    if check:
        return _check(setup, peers)
    client = setup.client
    if as_json:
        say_json(client.status_json(peers))
        return ExitStatus.DONE
    reply = client.status(peers, fresh=bool(peers) or for_people())
    order = list(ORDER)
    reply.peers.sort(key=lambda peer: order.index(peer.state))
    now = time.time()
    if peers:
        for block in reply.blocks:
            say(*map(safe, block_detail(block, now)))
        for peer in reply.peers:
            say(*detail(peer, now))
        write(*(paint(line, "red") for line in notices(reply.disabled, reply.trial)))
        say(*_data_path(reply))
        say(*_age(reply, now))
        return ExitStatus.DONE
    say(*heading(reply, now))
    write(*(paint(line, "red") for line in notices(reply.disabled, reply.trial)))
    for problem in reply.problems:
        text = safe(f"problem: {problem}")
        write(*(paint(line, "red") for line in (wrap(text, indent=0, hang=4) if for_people() else [text])))
    for block in reply.blocks:
        say(safe(block_line(block)))
    if reply.peers:
        say("")
        write(*(_for_people if for_people() else _for_programs)(reply.peers, now))
        say("")
    say(*footing(reply, now))
    return ExitStatus.DONE


def heading(reply: StatusReply, now: float) -> list[str]:
    """This host, its service and its charon."""
    host, charon = reply.host, reply.charon
    if charon.reachable:
        daemon = f"charon {charon.version} for {span(now - charon.since)}"
    else:
        daemon = f"charon NOT REACHABLE for {span(now - charon.since)}"
        daemon += f" ({charon.reason})" if charon.reason else ""
    return [
        f"{host.name} ({', '.join(host.addresses)}), policy {host.policy}",
        f"swanmesh {host.swanmesh} for {span(now - host.started)}; {daemon}",
        *_certificate(reply, now),
    ]


def _certificate(reply: StatusReply, now: float) -> Iterator[str]:
    """How long this host's certificate lives, and when it is renewed; what is wrong is among the problems."""
    if not reply.certificates or (left := reply.certificates[0].not_after - now) <= 0:
        return
    renewal = ""
    if reply.next_renewal is not None:
        wait = reply.next_renewal - now
        renewal = f", renewed in {span(wait)}" if wait > 0 else ", being renewed"
    yield f"certificate for another {span(left)}{renewal}"


def _for_programs(peers: list[PeerStatus], now: float) -> list[str]:
    """One line a peer, however long."""
    headings = ("PEER", "STATE", "FOR", "ADDRESSES", "IN", "OUT", "REASON")
    rows = []
    for peer in peers:
        received, sent = map(amount, traffic(peer))
        why = "; ".join(reasons(peer, now))
        addresses = ", ".join(peer.addresses)
        rows.append((peer.name, peer.state, span(now - peer.since), addresses, received, sent, why))
    return table(headings, rows)


def _for_people(peers: list[PeerStatus], now: float) -> Iterator[str]:
    """As wide as the terminal; each reason on lines of its own. Printable, and with colours."""
    rows = []
    for peer in peers:
        received, sent = map(amount, traffic(peer))
        rows.append([peer.name, peer.state, span(now - peer.since), received, sent])
    headings = ["PEER", "STATE", "FOR", "IN", "OUT"]
    left = width() - len(table(headings, rows)[0]) - 8
    addresses = [_fitted(peer.addresses, left) for peer in peers]
    if all(addresses):
        headings.append("ADDRESSES")
        rows = [[*row, shown] for row, shown in zip(rows, addresses, strict=True)]
    head, *lines = table(headings, rows)
    yield head
    place = head.index("STATE")
    for peer, line in zip(peers, lines, strict=True):
        end = place + len(peer.state)
        yield line[:place] + paint(line[place:end], ORDER[peer.state]) + line[end:]
        yield from wrap(safe("; ".join(reasons(peer, now))), indent=4)


def _fitted(addresses: list[str], room: int) -> str:
    """As many of them as fit, and how many more there are; empty if not even one fits."""
    for shown in range(len(addresses), 0, -1):
        more = len(addresses) - shown
        text = ", ".join(addresses[:shown]) + (f" (+{more})" if more else "")
        if len(text) <= room:
            return text
    return ""


def footing(reply: StatusReply, now: float) -> list[str]:
    """The sum."""
    if not reply.peers:
        return ["no peers"]
    counts = {state: sum(peer.state == state for peer in reply.peers) for state in ORDER}
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return [f"{plural(len(reply.peers), 'peer')}: {states}", *_age(reply, now)]


def _data_path(reply: StatusReply) -> Iterator[str]:
    """Segmentation through ESP, and what to do where it is not as it should be."""
    if reply.data_path:
        yield f"data path: {reply.data_path}"
    yield from (safe(f"data path: {problem}") for problem in reply.data_path_problems)


def _age(reply: StatusReply, now: float) -> list[str]:
    if reply.observed is None or now - reply.observed < _STALE:
        return []
    return [f"bytes and packets as charon told them {span(now - reply.observed)} ago"]


def _check(setup: Setup, peers: tuple[str, ...]) -> int:
    """One line on stdout whatever happens, as monitoring wants it."""
    from swanmesh.control.client import ServiceTimeout, ServiceUnreachable

    try:
        reply = setup.client.status(peers)
    except (ServiceUnreachable, ServiceTimeout) as error:
        say(f"UNKNOWN: {error}")
        return ExitStatus.UNREACHABLE
    wrong = list(_wrong(reply, with_problems=not peers))
    say(f"NOT OK: {'; '.join(wrong)}" if wrong else f"OK: {plural(len(reply.peers), 'peer')}, all up")
    return ExitStatus.FAILED if wrong else ExitStatus.DONE


def _wrong(reply: StatusReply, *, with_problems: bool) -> Iterator[str]:
    if reply.disabled is not None:
        yield from notices(reply.disabled, None)
    if not reply.charon.reachable:
        yield f"charon is not reachable ({reply.charon.reason})"
    missing = [peer for peer in reply.peers if peer.state != "up" and not _left_out(peer)]
    if missing:
        named = [_named(peer) for peer in missing[:_NAMED]]
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        total = plural(len(reply.peers), "peer")
        yield f"{len(missing)} of {total} not up: {', '.join(named)}{more}"
    for peer in reply.peers:
        if peer.violation:
            yield f"{peer.name} did what was not agreed: {peer.violation}"
    if with_problems and reply.problems:
        yield f"{plural(len(reply.problems), 'mistake')} in files: {reply.problems[0]}"


def _left_out(peer: PeerStatus) -> bool:
    return peer.state == "disabled" and peer.policy == "off"


def _named(peer: PeerStatus) -> str:
    return f"{peer.name} {peer.state}" + (f" ({peer.reason})" if peer.reason else "")
