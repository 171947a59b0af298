"""`swanmesh policy`: from clear to encrypted, without cutting anybody off."""

from __future__ import annotations

import click

from swanmesh.cli.failures import ExitStatus
from swanmesh.cli.setup import Setup, complete_peer, json_option, pass_setup, seconds
from swanmesh.core.settings.policy import OFFERED, check_policy

RISKS = ("cut-peers", "lose-ssh")
"""What `policy set` refuses unless it is accepted by name."""
_SHORTEST = 1.0
"""Seconds that a trial lasts at least."""


@click.group()
def policy() -> None:
    """See what stands in the way of `require`, and change policies so that it can be taken back."""


@policy.command()
@click.argument("peers", nargs=-1, metavar="[PEER…]", shell_complete=complete_peer)
@json_option
@pass_setup
def report(setup: Setup, peers: tuple[str, ...], as_json: bool) -> int:
    """List for each peer what stands in the way of `require`.

    That is its policy, whether it is a member (it answered with a certificate of the mesh), whether it is up,
    and why not. What needs work comes first.
    """
    from swanmesh.cli.policy_report import show_report

    show_report(setup, peers, as_json)
    return ExitStatus.DONE


def _confirm_within(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and value < _SHORTEST:
        raise click.BadParameter("must be a second or more, such as 60s or 5m")
    return value


@policy.command("set")
@click.argument("wanted", metavar="POLICY", type=click.Choice(OFFERED))
@click.argument("peers", nargs=-1, metavar="[PEER…]", shell_complete=complete_peer)
@click.option(
    "--accept-risk",
    "accepted",
    multiple=True,
    type=click.Choice(RISKS),
    help="Do it although it cuts off peers that are not up, or may end an SSH session. May be repeated.",
)
@click.option(
    "--confirm-within",
    "within",
    type=seconds,
    callback=_confirm_within,
    metavar="TIME",
    help="Go back by itself after so long (60s, 5m), unless `policy confirm` follows.",
)
@click.option("--dry-run", is_flag=True, help="Say what would change and what would break; do nothing.")
@json_option
@pass_setup
def set_(
    setup: Setup,
    wanted: str,
    peers: tuple[str, ...],
    accepted: tuple[str, ...],
    within: float | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Give this host, or only the PEERs, another policy, and wait until it is in force.

    Without PEER it is this host's own, which peers that have none of their own take. The one word is changed
    in swanmesh.yaml or in the peers' files; all else stays as it is written there.

    It refuses what would cut somebody off: `require` for peers that are not up (cut-peers), or for one from
    which somebody is logged in over SSH (lose-ssh). With --confirm-within no file is changed before `policy
    confirm`, and the service goes back when the time is over: whoever was logged out, and whether the service
    was killed or the host booted meanwhile.

    Exit status 1 if it refuses, 4 if it is not in force in time.
    """
    from swanmesh.cli.policy_set import change

    return change(
        setup, check_policy(wanted), peers, accepted=accepted, within=within, dry_run=dry_run, as_json=as_json
    )


@policy.command()
@json_option
@pass_setup
def confirm(setup: Setup, as_json: bool) -> int:
    """Keep the policy that is on trial: writes it into the files. Exit status 1 if there is none."""
    from swanmesh.cli.policy_trial import confirm_trial

    return confirm_trial(setup, as_json)


@policy.command()
@json_option
@pass_setup
def cancel(setup: Setup, as_json: bool) -> int:
    """Go back at once from the policy that is on trial. Exit status 1 if there is none."""
    from swanmesh.cli.policy_trial import cancel_trial

    return cancel_trial(setup, as_json)
