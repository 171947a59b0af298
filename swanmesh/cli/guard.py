"""`swanmesh guard`: the kernel policies that hold clear text back, seen and changed without the service."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from swanmesh.cli.failures import ExitStatus, Failure
from swanmesh.cli.output import plural, say, say_json, span, table
from swanmesh.cli.setup import Setup, json_option, pass_setup

_CLEARS = (
    "From then on traffic with all peers is in clear wherever charon does not encrypt or hold it, also after"
    " the next boot, until the service starts again. Take the guard away?"
)


@click.group()
def guard() -> None:
    """The kernel's guard: what `require` says, kept by the kernel without charon and without the service."""


@guard.command()
@json_option
@pass_setup
def status(setup: Setup, as_json: bool) -> int:
    """Show what is closed, what was refused, and whether the next boot begins with the same.

    Asks the kernel itself, so it needs root, and no service. Exit status 1 if the two differ.
    """
    from swanmesh.core.guard.policies import closed, last_used
    from swanmesh.kernel import guard as kernel
    from swanmesh.kernel import packet_filter

    with _kernel():
        standing, kept, refused = kernel.standing(), kernel.kept(setup.config.state), kernel.refusals()
    networks, at_boot, last = closed(standing), closed(kept), last_used(standing)
    if as_json:
        shown = [
            {"network": name, "refused_out": last[key].out or None, "refused_in": last[key].into or None}
            if key in last
            else {"network": name, "refused_out": None, "refused_in": None}
            for name, key in networks.items()
        ]
        say_json(
            {
                "closed": shown,
                "policies": len(standing),
                "refused": refused,
                "udp_4500_kept_out": packet_filter.stands(),
                "missing": sorted(at_boot.keys() - networks.keys()),
                "not_at_boot": sorted(networks.keys() - at_boot.keys()),
            }
        )
    else:
        say(f"closed to clear text: {plural(len(networks), 'network')}, by {len(standing)} policies")
        say(f"refused since the kernel started: {refused['out']} packets out, {refused['in']} in")
        if mismatches := refused.get("in_expected_encrypted"):
            say(f"and {mismatches} in, in clear from peers that are up: do these exempt more than this host?")
        say(
            f"UDP 4500 from peers without encapsulation: {'kept out' if packet_filter.stands() else 'let in'}"
        )
        rows = [
            (name, _ago(last[key].out), _ago(last[key].into)) for name, key in networks.items() if key in last
        ]
        say(*(table(("REFUSED LAST", "OUT", "IN"), rows) if rows else ()))
        _differences("not closed now, but after the next boot", at_boot.keys() - networks.keys())
        _differences("closed now, but not after the next boot", networks.keys() - at_boot.keys())
    return ExitStatus.DONE if networks.keys() == at_boot.keys() else ExitStatus.FAILED


@guard.command()
@pass_setup
def apply(setup: Setup) -> None:
    """Put what the service keeps for the next boot into the kernel now, as swanmesh-guard.service does.

    Opens nothing: what is closed and not in the file stays so. A running service does this by itself.
    """
    from swanmesh.kernel import boot
    from swanmesh.kernel.guard import FILE

    path = setup.config.state / FILE
    with _kernel():
        if fault := boot.untrusted(str(path)):
            raise Failure(ExitStatus.INVALID, f"{path} is not believed: {fault}")
        refused = boot.apply(path.read_bytes())
    if refused:
        raise Failure(ExitStatus.FAILED, f"the kernel refused {len(refused)} of its policies")
    say("the guard stands")


@guard.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_setup
def clear(setup: Setup, yes: bool) -> None:
    """Take the guard out of the kernel, and from the next boot, with the service stopped.

    From then on traffic with the peers is in clear wherever charon does not encrypt or hold it. The service
    puts the guard back when it starts.
    """
    from swanmesh.cli.terminal import agreed
    from swanmesh.kernel import guard as kernel

    remedy = "stop it first (systemctl stop swanmesh), or change the policy"
    setup.refuse_while_running(f"would put the guard back; {remedy}")
    if not yes and not agreed(_CLEARS):
        raise Failure(ExitStatus.FAILED, "nothing was changed")
    with _kernel():
        gone = kernel.clear(_folder(setup))
    say(f"the guard is gone: {gone} policies")


def _folder(setup: Setup) -> Path:
    """The service's own folder, or the usual one while swanmesh.yaml is broken: no mistake there keeps a
    guard in force."""
    from swanmesh.config.sections import STATE
    from swanmesh.core.model import InvalidInput

    try:
        return setup.config.state
    except InvalidInput:
        return STATE


@contextlib.contextmanager
def _kernel() -> Iterator[None]:
    """Tells in words what the kernel, or the service's folder, refuses."""
    try:
        yield
    except FileNotFoundError as error:
        remedy = "the service keeps it: systemctl start swanmesh"
        raise Failure(ExitStatus.FAILED, f"{error.filename}: {error.strerror}; {remedy}") from None
    except OSError as error:
        from swanmesh.kernel.requests import explain

        raise Failure(ExitStatus.FAILED, explain(error)) from None


def _ago(moment: int) -> str:
    return f"{span(time.time() - moment)} ago" if moment else "-"


def _differences(what: str, names: Iterable[str]) -> None:
    if names := sorted(names):
        say(f"{what}: {', '.join(names)}")
