"""`swanmesh run`: the service."""

from __future__ import annotations

import gc

import click

from swanmesh.cli.setup import Setup, pass_setup


@click.command()
@pass_setup
def run(setup: Setup) -> int:
    """Run the service in the foreground, until it is told to stop.

    Stopping it leaves charon and every association as they are.
    """
    # A collection that many new modules set off takes as long as a third of their import, and finds nothing.
    gc.disable()
    from swanmesh.service.main import main

    gc.enable()
    return main(setup.config_path)
