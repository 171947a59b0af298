"""`add-block` and `remove-block`: the file first, whole or not at all; then the service is told."""

from __future__ import annotations

import click

from swanmesh.cli.failures import ExitStatus, Failure, complain
from swanmesh.cli.output import say, say_json
from swanmesh.cli.setup import Setup, json_option, pass_setup
from swanmesh.core.settings.policy import OFFERED


@click.command("add-block")
@click.argument("cidr", metavar="CIDR")
@click.option("--name", help="Its file's name; made of the block if not given.")
@click.option("--policy", type=click.Choice(OFFERED), help="If not the host's own.")
@click.option(
    "--except",
    "exceptions",
    multiple=True,
    metavar="ADDRESS",
    help="An address or a network in it that is no part of it: the gateway for one. May be given again.",
)
@click.option("--wide", is_flag=True, help="A block wider than a /8 (IPv6: a /32) is meant.")
@json_option
@pass_setup
def add_block(
    setup: Setup,
    cidr: str,
    name: str | None,
    policy: str | None,
    exceptions: tuple[str, ...],
    wide: bool,
    as_json: bool,
) -> int:
    """Let in every host of the block CIDR that has a certificate of the mesh, or change what holds for it.

    Writes blocks.d/NAME.yaml, whole or not at all, and tells the service. Under the policy `require` nothing
    crosses in clear any more with any host of the block: name what is no member with --except, or use
    `prefer`. The same again changes nothing.
    """
    from swanmesh.cli.add import tell
    from swanmesh.config.block_edit import restore_block, write_block
    from swanmesh.core.peers.blocks import default_name, parse_block

    chosen = default_name(cidr) if name is None else name
    block = parse_block(chosen, cidr, policy, list(exceptions), wide, source="add-block")
    written = write_block(setup.config.blocks, block, wide=wide)
    reply, untold = tell(setup, [written.path]) if written.changed else (None, None)
    found = reply.problems if reply is not None else ()
    errors = [problem for problem in found if problem.startswith(f"{written.path}:")]
    if errors:
        restore_block(written)
        tell(setup, [written.path], removed=True)
        raise Failure(ExitStatus.INVALID, *errors, "nothing was changed")
    if as_json:
        say_json(
            {
                "block": {
                    "name": written.block.name,
                    "cidr": str(written.block.cidr),
                    "file": str(written.path),
                    "result": written.result,
                },
                "service": untold is None,
            }
        )
        return ExitStatus.DONE
    say(f"{written.block.name}: {written.block.cidr} {written.result}")
    if untold is not None:
        say(f"written, and not in force yet: {untold}; the service reads it as soon as it runs")
    return ExitStatus.DONE


@click.command("remove-block")
@click.argument("name", metavar="NAME")
@json_option
@pass_setup
def remove_block(setup: Setup, name: str, as_json: bool) -> int:
    """Remove a block: associations with hosts that were met under it end, and packets to it cross in clear.

    A host of it that has a file, or that another block has, is kept.
    """
    from swanmesh.cli.add import tell
    from swanmesh.config.block_edit import remove_block as remove

    path = remove(setup.config.blocks, name)
    told, untold = tell(setup, [path], removed=True)
    if as_json:
        say_json({"removed": {"name": name.lower(), "file": str(path)}, "service": untold is None})
        return ExitStatus.DONE
    say(f"{name.lower()}: removed")
    if untold is not None:
        say(f"not done yet: {untold}; the service does it as soon as it runs")
    elif told is not None:
        complain(*told.problems)
    return ExitStatus.DONE
