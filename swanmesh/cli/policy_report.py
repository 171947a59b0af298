"""`policy report`: what stands in the way of `require`, peer by peer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from swanmesh.cli.detail import block_line, clear_text, lacking
from swanmesh.cli.output import amount, plural, say, say_json, span, table

if TYPE_CHECKING:
    from swanmesh.cli.setup import Setup
    from swanmesh.control.protocol import PeerPolicy, PolicyReply
    from swanmesh.control.reports import TrialStatus

_NAMED = 10
"""Peers that a line names."""


def show_report(setup: Setup, peers: Sequence[str], as_json: bool) -> None:
    reply = setup.client.policy(peers)
    if as_json:
        say_json(msgspec.json.encode(reply))
        return
    say(*_heading(reply), *map(block_line, reply.blocks))
    if not reply.peers:
        say("no peers")
        return
    now = time.time()
    rows = [
        (
            peer.name,
            peer.policy if peer.own is None else f"{peer.policy} (its own)",
            peer.state,
            {True: "yes", False: "NO", None: "not known"}[peer.member],
            f"{amount(peer.traffic.bytes_in)} in, {amount(peer.traffic.bytes_out)} out",
            clear_text(peer.clear, now) or "-",
            "; ".join(_remarks(peer)),
        )
        for peer in sorted(reply.peers, key=lambda peer: (not peer.obstacle, peer.name))
    ]
    headings = ("PEER", "POLICY", "STATE", "MEMBER", "ENCRYPTED", "IN CLEAR", "IN THE WAY OF require")
    say("", *table(headings, rows), "")
    blocked = sum(bool(peer.obstacle) for peer in reply.peers)
    say(f"{blocked} of {plural(len(reply.peers), 'peer')} would be cut off by `require`")


def _heading(reply: PolicyReply) -> Iterator[str]:
    yield f"this host's policy: {reply.policy}"
    yield from notices(reply.disabled, reply.trial)


def notices(disabled: float | None, trial: TrialStatus | None) -> Iterator[str]:
    """What holds instead of the files, loud."""
    if disabled is not None:
        yield f"DISABLED for {span(time.time() - disabled)}: everything is in clear until `swanmesh enable`"
    if trial is not None:
        yield (
            f"ON TRIAL: {trial.policy} for {on_trial(trial)} goes back in {span(trial.left)}"
            " unless `swanmesh policy confirm` follows"
        )


def on_trial(trial: TrialStatus) -> str:
    """Whose policy is on trial."""
    return "this host" if trial.host else listed(trial.peers)


def _remarks(peer: PeerPolicy) -> Iterator[str]:
    if peer.obstacle:
        yield peer.obstacle
    for version in peer.lacks:
        yield f"IPv{version}: {lacking(version)}"


def listed(names: Iterable[str]) -> str:
    """Names in a line, the first few of many."""
    names = list(names)
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
