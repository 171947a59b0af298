"""`swanmesh purge`: what uninstalling leaves nothing of."""

from __future__ import annotations

import contextlib

import click

from swanmesh.cli.failures import ExitStatus, Failure
from swanmesh.cli.output import plural, say, say_json
from swanmesh.cli.setup import Setup, json_option, pass_setup


@click.command()
@json_option
@pass_setup
def purge(setup: Setup, as_json: bool) -> int:
    """Take all that is swanmesh's out of charon and the kernel, with the service stopped.

    That is connections, traps and associations, and then the guard, which is not put back at the next boot
    either. What others loaded is left alone, and charon runs on. From then on traffic with the peers is in
    clear, or dropped by those of them that still run swanmesh under `require`. Certificates and the key stay
    in charon's memory until it is restarted.
    """
    from swanmesh.kernel.guard import clear
    from swanmesh.service import purge as service

    remedy = "stop it first: systemctl disable --now swanmesh"
    setup.refuse_while_running(f"would load everything again; {remedy}")
    config = setup.config
    try:
        purged = service.purge(config.charon.socket, config.charon.timeout)
    except service.NotPurged as error:
        raise Failure(ExitStatus.FAILED, str(error)) from error
    policies = 0
    with contextlib.suppress(OSError):  # a kernel that shows no IPsec has no guard
        policies = clear(config.state)
    if as_json:
        say_json({"connections": purged.connections, "ike_sas": purged.ike_sas, "policies": policies})
    else:
        guard = f", took {policies} policies of the guard away" if policies else ""
        connections, ike_sas = plural(len(purged.connections), "connection"), plural(purged.ike_sas, "IKE_SA")
        say(f"unloaded {connections}, ended {ike_sas}{guard}")
    return ExitStatus.DONE
