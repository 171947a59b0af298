"""`python -m bench`: one host with thousands of peers. Exit status 0 if everything could be measured."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import add, commands, guard, idle, load, probe, revoking
from bench.results import Results

SECTIONS = ("load", "add", "idle", "probe", "commands", "guard", "revoke")


def main() -> int:
    arguments = _arguments()
    results = Results()
    with tempfile.TemporaryDirectory(prefix="swanmesh-bench-") as name:
        folder = Path(name)
        peers, rounds = arguments.peers, arguments.rounds
        parts: dict[str, Callable[[], None]] = {
            "load": lambda: load.measure(results, folder, peers, rounds),
            "add": lambda: add.measure(results, folder, peers, rounds),
            "idle": lambda: idle.measure(results, folder, peers, arguments.idle),
            "probe": lambda: probe.measure(results, folder, peers, arguments.idle),
            "commands": lambda: commands.measure(results, folder, sorted({50, peers}), rounds),
            "guard": lambda: guard.measure(results, folder, peers, rounds),
            "revoke": lambda: revoking.measure(results, folder, peers, rounds),
        }
        for section in arguments.sections or SECTIONS:
            print(f"measuring: {section}", file=sys.stderr, flush=True)
            parts[section]()
    print(results.table())
    if arguments.json is not None:
        results.write_json(arguments.json)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all")
    parser.add_argument("--peers", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--idle", type=float, default=150, help="seconds over which idling is measured")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"unknown section: {', '.join(unknown)}")
    if os.geteuid() != 0:
        parser.error("must be root: it starts charons in network namespaces of their own")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
