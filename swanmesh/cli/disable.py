"""`swanmesh disable` and `enable`: the quick way out, and the way back."""

from __future__ import annotations

import contextlib
import sys
import time

import click

from swanmesh.cli.failures import ExitStatus, Failure, complain
from swanmesh.cli.output import plural, say, say_json
from swanmesh.cli.setup import Setup, json_option, pass_setup

_PATIENCE = 5.0
"""Seconds that the service has for it to be so. It takes a fraction of one."""
_LAST_WORD = 0.5
"""Seconds that peers have to answer a DELETE where no service runs: this is the quick way out."""

_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command()
@_yes_option
@json_option
@pass_setup
def disable(setup: Setup, yes: bool, as_json: bool) -> int:
    """Put everything in clear at once, until `swanmesh enable`: the quick way out.

    All that is swanmesh's goes: associations, traps and what else holds packets back, for all peers and under
    every policy. Files stay as they are, and it is remembered: over restarts of the service, of charon and of
    the host. Peers that require encryption refuse this host meanwhile.

    Does it without the service as well. Asks, if standard input is a terminal.
    """
    from swanmesh.cli.policy_report import listed
    from swanmesh.cli.policy_trial import state_folder, tell_all
    from swanmesh.config import override

    names = _peers(setup)
    whom = f"{plural(len(names), 'peer')} ({listed(names)})" if names else "no peers"
    if not as_json:
        say(f"in clear until `swanmesh enable`: all traffic with {whom}")
        say("those of them that require encryption refuse this host meanwhile")
    _ask(yes, "Disable swanmesh on this host?")
    began = time.monotonic()
    changed = override.disable(state_folder(setup))
    if (untold := tell_all(setup)) is None:
        reply = setup.client.policy(settle=_PATIENCE)
        left = [peer.name for peer in reply.peers if not peer.settled]
    else:
        complain(f"done without the service: {untold}")
        left = _by_hand(setup)
    took = time.monotonic() - began
    if as_json:
        told = {"disabled": True, "changed": changed, "peers": names, "not_yet": left}
        say_json(told | {"seconds": round(took, 3)})
    else:
        say(f"{'disabled' if changed else 'disabled already'}, after {took:.1f} s")
    complain(*(f"{name}: not in clear yet; see `swanmesh plan`" for name in left))
    return ExitStatus.FAILED if left else ExitStatus.DONE


@click.command()
@_yes_option
@json_option
@pass_setup
def enable(setup: Setup, yes: bool, as_json: bool) -> int:
    """End a `disable`: what the files say holds again.

    Peers under `require` are closed until their associations are up, which takes a second where both ends are
    ready. Asks, if standard input is a terminal.
    """
    from swanmesh.cli.policy_trial import state_folder, tell_all
    from swanmesh.config import override

    if not as_json:
        say(f"encrypted again, as the files say: {plural(len(_peers(setup)), 'peer')}")
    _ask(yes, "Enable swanmesh on this host?")
    changed = override.enable(state_folder(setup))
    if (untold := tell_all(setup)) is not None:
        raise untold
    reply = setup.client.policy(settle=_PATIENCE)
    missing = setup.client.wait([], _PATIENCE).missing if changed else {}
    left = [peer.name for peer in reply.peers if not peer.settled]
    if as_json:
        say_json({"disabled": False, "changed": changed, "not_in_force": left, "not_up": missing})
    else:
        up = len(reply.peers) - len(missing)
        say(f"enabled: {up} of {plural(len(reply.peers), 'peer')} up" if changed else "enabled already")
    complain(*(f"{name}: not up yet: {why}" for name, why in missing.items()))
    return ExitStatus.TIMED_OUT if left else ExitStatus.DONE


def _ask(yes: bool, question: str) -> None:
    """Raises Failure unless the person at the terminal says yes. Where nobody sits nobody is asked: in an
    outage, the way out must not hang."""
    from swanmesh.cli.terminal import agreed

    if not yes and sys.stdin.isatty() and not agreed(question):
        raise Failure(ExitStatus.FAILED, "nothing was changed")


def _peers(setup: Setup) -> list[str]:
    """Names of all peers: of the service, or of the files where none answers."""
    from swanmesh.config.entry_files import peer_directory
    from swanmesh.control.client import RequestRefused, ServiceTimeout, ServiceUnreachable

    try:
        return [peer.name for peer in setup.client.policy().peers]
    except (RequestRefused, ServiceTimeout, ServiceUnreachable):
        config = setup.config
        found = peer_directory(config.peers).scan().entries.values()
        return sorted(peer.name for peer in found if peer.name != config.host.name)


def _by_hand(setup: Setup) -> list[str]:
    """Take all that is ours out of the kernel and out of charon, with no service to do it. Returns what could
    not be."""
    from swanmesh.kernel import guard
    from swanmesh.service import purge

    left, config = [], setup.config
    with contextlib.suppress(OSError):  # a kernel that shows no IPsec has no guard
        guard.clear(config.state)
    try:
        purge.purge(config.charon.socket, config.charon.timeout, patience=_LAST_WORD)
    except purge.NotPurged as error:
        left = [f"charon ({error})"]
    return left
