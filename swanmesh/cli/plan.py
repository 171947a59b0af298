"""`swanmesh plan`: what would be done, each line with its reason."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from swanmesh.cli.failures import ExitStatus, complain
from swanmesh.cli.output import plural, say, say_json, span, table
from swanmesh.cli.setup import Setup, json_option, pass_setup

if TYPE_CHECKING:
    from swanmesh.control.protocol import PlannedAction, PlanReply


@click.command()
@click.option("--offline", is_flag=True, help="From the files alone, as if charon held nothing of ours yet.")
@json_option
@pass_setup
def plan(setup: Setup, offline: bool, as_json: bool) -> int:
    """Show what the service would do now, and why. Nothing is done.

    Exit status 2 with --offline if there are mistakes in the files; what they do not touch is shown.
    """
    if offline:
        return _offline(setup, as_json)
    reply = setup.client.plan()
    if not as_json and not reply.charon_reachable:
        say("charon is not reachable: this is done when it is back")
    _show(reply, as_json)
    return ExitStatus.DONE


def _offline(setup: Setup, as_json: bool) -> int:
    from swanmesh.cli.offline import offline_plan, read_files

    files = read_files(setup.config_path)
    _show(offline_plan(files), as_json)
    complain(*map(str, files.errors))
    return ExitStatus.INVALID if files.errors else ExitStatus.DONE


def _show(reply: PlanReply, as_json: bool) -> None:
    if as_json:
        say_json(reply)
        return
    if not reply.actions:
        say("nothing to do")
        return
    now = time.time()
    rows = [(a.action, a.peer, a.target, _when(a, now), a.reason) for a in reply.actions]
    say(*table(("ACTION", "PEER", "TARGET", "WHEN", "REASON"), rows), plural(len(rows), "action"))


def _when(action: PlannedAction, now: float) -> str:
    """At its time, or when what it waits for is over."""
    if action.due is not None and action.due > now:
        return f"in {span(action.due - now)}"
    return action.blocked or "now"
