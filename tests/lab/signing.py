"""What a host's `renewal.command` runs in the lab: `python -m tests.lab.signing DIRECTORY SECONDS`.

Signs the request on standard input by the authority in DIRECTORY, for so many seconds: what `ca sign` issues
lives for days.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from lab import Host
from swanmesh.pki.authority import Authority
from swanmesh.pki.reading import pem
from swanmesh.pki.request import read_request

REPOSITORY = Path(__file__).parents[2]


def renews_by(host: Host, directory: Path, seconds: float) -> list[str]:
    """A command that has the authority in `directory` sign for the host."""
    program = host.folder / "renew"
    call = f"exec {sys.executable} -m tests.lab.signing {directory} {seconds}"
    program.write_text(f"#!/bin/sh\ncd {REPOSITORY} && {call}\n")
    program.chmod(0o755)
    return [str(program)]


def main() -> None:
    directory, seconds = Path(sys.argv[1]), float(sys.argv[2])
    asked = read_request(sys.stdin.buffer.read(), "-")
    authority = Authority.load(directory)
    made = authority.certify(asked.key, asked.name, asked.addresses, now=time.time(), lifetime=seconds)
    sys.stdout.write((pem(made) + pem(authority.certificate)).decode())


if __name__ == "__main__":
    main()
