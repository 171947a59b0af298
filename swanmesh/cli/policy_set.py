"""`policy set`: what would break comes first, and nothing is done unless that is accepted by name."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from swanmesh.cli.failures import ExitStatus, Failure, complain
from swanmesh.cli.output import plural, say, say_json, span
from swanmesh.cli.policy_report import listed, on_trial
from swanmesh.cli.policy_trial import PATIENCE, tell_all, writing
from swanmesh.config.override import begin_trial, end_trial
from swanmesh.config.policies import write_policies
from swanmesh.core.guard.policies import OUT_OPEN
from swanmesh.core.model import Address
from swanmesh.core.settings.override import HOST
from swanmesh.core.settings.policy import Policy, check_policy
from swanmesh.machine.sessions import ssh_peers

if TYPE_CHECKING:
    from swanmesh.cli.setup import Setup
    from swanmesh.control.protocol import PeerPolicy, PolicyReply
    from swanmesh.control.reports import BlockStatus

_SSH = "tcp/22"
_CHANGED_OVER = OUT_OPEN + 2.0
"""Seconds after which a peer that prefers has changed over to an association, with some room."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of policy, and what would break."""

    policy: Policy
    host: bool
    """Whether it is this host's own policy that changes."""
    writes: bool
    """Whether any file is to say something else than now."""
    named: tuple[PeerPolicy, ...]
    """Peers whose own policy changes."""
    affected: tuple[PeerPolicy, ...]
    """Peers for whom another policy comes into force."""
    kept: tuple[PeerPolicy, ...]
    """Peers that go on with another one of their own."""
    risks: dict[str, list[str]] = field(default_factory=dict)
    """What would break, in lines, by the name under which it is accepted."""

    @property
    def whom(self) -> str:
        return "this host" if self.host else listed([peer.name for peer in self.named])


def _consider(reply: PolicyReply, policy: Policy, named: bool, sessions: Collection[Address]) -> _Change:
    chosen = reply.peers if named else [peer for peer in reply.peers if peer.own is None]
    affected = tuple(peer for peer in chosen if peer.policy != policy)
    kept = () if named else tuple(peer for peer in reply.peers if peer.own not in (None, policy))
    risks: dict[str, list[str]] = {}
    if policy.meaning.closed:
        if cut := [f"{peer.name}: {peer.obstacle}" for peer in affected if peer.obstacle]:
            risks["cut-peers"] = cut
        for peer in affected:
            sources = {str(address) for address in sessions}.intersection(peer.addresses)
            if sources and _SSH not in peer.exempt:
                words = f"{peer.name}: somebody is logged in over SSH from {', '.join(sorted(sources))}"
                risks.setdefault("lose-ssh", []).append(f"{words}, and {_SSH} is not exempt")
        for block in () if named else reply.blocks:
            for risk, words in _strangers(block, reply.peers, sessions):
                risks.setdefault(risk, []).append(words)
    writes = any(peer.own != policy for peer in chosen) if named else reply.stated != policy
    return _Change(policy, not named, writes, tuple(reply.peers) if named else (), affected, kept, risks)


def _strangers(
    block: BlockStatus, peers: Collection[PeerPolicy], sessions: Collection[Address]
) -> Iterator[tuple[str, str]]:
    """What would break for those in a block who are no members, by the name under which it is accepted."""
    if block.own is not None or check_policy(block.policy).meaning.closed:
        return
    if block.strangers:
        hosts = f"{plural(block.strangers, 'host')} in {block.cidr}"
        yield (
            "cut-peers",
            f"{block.name}: {hosts} met lately, no members: see `swanmesh status {block.name}`",
        )
    known = {address for peer in peers for address in peer.addresses}
    outside = [ip_network(each) for each in block.exceptions]
    for address in sessions:
        inside = address in ip_network(block.cidr) and not any(address in each for each in outside)
        if inside and str(address) not in known:
            yield "lose-ssh", f"{block.name}: somebody is logged in over SSH from {address}, no member"


def change(
    setup: Setup,
    policy: Policy,
    peers: Sequence[str],
    *,
    accepted: Collection[str],
    within: float | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """`policy set`."""
    _ = setup.config  # a file with mistakes is not changed
    reply = setup.client.policy(peers)
    if reply.trial is not None:
        remedy = "run `swanmesh policy confirm` or `swanmesh policy cancel` first"
        what = f"{reply.trial.policy} is on trial for {on_trial(reply.trial)}"
        raise Failure(ExitStatus.FAILED, f"{what}; {remedy}")
    if met := [peer for peer in reply.peers if peers and peer.block]:
        words = [f"{peer.name} was met under the block {peer.block}, whose policy it has" for peer in met]
        raise Failure(ExitStatus.INVALID, *words, "write the policy into the block's file, or add the peer")
    wanted = _consider(reply, policy, bool(peers), ssh_peers())
    refused = [name for name in wanted.risks if name not in accepted]
    complain(*_warnings(wanted, refused))
    if dry_run or refused:
        _tell_plan(wanted, refused, within, dry_run=dry_run, as_json=as_json)
        return ExitStatus.FAILED if refused else ExitStatus.DONE
    if not wanted.writes:
        if as_json:
            say_json({"policy": policy, "in_force": [], "not_in_force": [], "trial": None})
        else:
            say(f"the files say {policy} for {wanted.whom} already")
        return ExitStatus.DONE
    _wait_for_others(wanted)
    after = _write(setup, wanted, reply) if within is None else _try(setup, wanted, reply, within)
    return _await(setup, wanted, after, as_json)


def _wait_for_others(wanted: _Change) -> None:
    """A peer that prefers sends in clear for a moment more after the association came up (`core/guard`),
    and maybe has seen that later than this host. What it so sends would be refused."""
    if wanted.policy.meaning.closed and wanted.affected:
        youngest = max(peer.up_since or 0.0 for peer in wanted.affected)
        time.sleep(min(_CHANGED_OVER, max(0.0, youngest + _CHANGED_OVER - time.time())))


def _write(setup: Setup, wanted: _Change, reply: PolicyReply) -> str:
    """Into the files. Returns what became of it, in words."""
    config = setup.config
    paths = [config.path] if wanted.host else [Path(peer.file) for peer in wanted.named]
    with writing(config, host=wanted.host, peers=bool(wanted.named)):
        written = write_policies(dict.fromkeys(paths, wanted.policy))
    if (untold := tell_all(setup)) is not None:
        complain("written, and not in force yet: the service reads it as soon as it runs")
        raise untold
    return f"written to {listed(map(str, written))}" if written else "the files said so already"


def _try(setup: Setup, wanted: _Change, reply: PolicyReply, within: float) -> str:
    """On trial. Returns when it goes back, in words."""
    before: dict[str, Policy | None] = {HOST: check_policy(reply.stated)} if wanted.host else {}
    before |= {peer.name: check_policy(peer.own) if peer.own else None for peer in wanted.named}
    folder = Path(reply.state)
    record = begin_trial(folder, wanted.policy, before, within)
    if (untold := tell_all(setup)) is not None:
        end_trial(folder)
        raise untold
    until = time.strftime("%H:%M:%S", time.localtime(record.due))
    return f"it goes back at {until} unless `swanmesh policy confirm` follows"


def _await(setup: Setup, wanted: _Change, after: str, as_json: bool) -> int:
    """Until the policy is in force; says so, and for whom it is not."""
    concerned = {peer.name for peer in wanted.affected}
    reply = setup.client.policy(sorted(concerned), settle=PATIENCE if concerned else 0.0)
    now = [peer for peer in reply.peers if peer.name in concerned]
    missing = [peer for peer in now if peer.policy != wanted.policy or not peer.settled]
    held = [peer for peer in now if peer not in missing]
    if as_json:
        say_json(
            {
                "policy": wanted.policy,
                "in_force": [peer.name for peer in held],
                "not_in_force": [peer.name for peer in missing],
                "trial": msgspec.to_builtins(reply.trial),
            }
        )
    else:
        say(f"{wanted.policy} is in force for {plural(len(held), 'peer')}; {after}")
    if missing and reply.disabled is not None:
        complain("swanmesh is disabled: it comes into force with `swanmesh enable`")
    elif missing:
        complain(f"not in force yet for {listed([peer.name for peer in missing])}; see `swanmesh plan`")
    return ExitStatus.TIMED_OUT if missing else ExitStatus.DONE


def _warnings(wanted: _Change, refused: Collection[str]) -> Iterator[str]:
    """What would break, the names first."""
    for name, lines in wanted.risks.items():
        for line in lines:
            yield f"{line} ({name})"
    for peer in wanted.kept:
        yield f"{peer.name}: goes on with the policy of its own, {peer.own}"
    if refused:
        options = " ".join(f"--accept-risk={name}" for name in refused)
        yield f"nothing was changed: {wanted.policy} would cut them off; if that is meant, add {options}"
    if wanted.affected and not wanted.policy.meaning.connects:
        yield f"peers that require encryption will refuse this host while it has the policy {wanted.policy}"


def _tell_plan(
    wanted: _Change, refused: list[str], within: float | None, *, dry_run: bool, as_json: bool
) -> None:
    if as_json:
        say_json(
            {
                "policy": wanted.policy,
                "would_change": [peer.name for peer in wanted.affected],
                "risks": wanted.risks,
                "refused": refused,
                "dry_run": dry_run,
            }
        )
    elif dry_run:
        trial = f", on trial for {span(within)}" if within is not None else ""
        names = listed([peer.name for peer in wanted.affected]) or "nobody"
        say(f"would set {wanted.policy} for {wanted.whom}{trial}: another policy than now for {names}")
