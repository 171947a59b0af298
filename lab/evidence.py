"""What is kept of each host when something failed."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.host import Host

_FILES = ("*.log", "*.log.*", "*.out", "*.pcap", "swanmesh.yaml", "strongswan.conf", "peers.d")
_COMMANDS = {
    # Without `nokeys` the keys of the associations would stand in a log.
    "xfrm-state.txt": ("ip", "-s", "xfrm", "state", "list", "nokeys"),
    "xfrm-policy.txt": ("ip", "-s", "xfrm", "policy"),
    "xfrm-stat.txt": ("cat", "/proc/net/xfrm_stat"),
    "addresses.txt": ("ip", "-s", "address"),
}


def folder(name: str) -> Path:
    """A folder for `name` that outlives the lab: below $LAB_OUT, or a new one if that is not set."""
    base = os.environ.get("LAB_OUT") or tempfile.mkdtemp(prefix="swanmesh-lab-out.")
    path = Path(base) / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def keep(hosts: Iterable[Host], into: Path) -> None:
    """Copies each host's logs and files, and writes what its charon, kernel and controller say now."""
    for host in hosts:
        place = into / host.short
        place.mkdir(exist_ok=True)  # another mesh of the same test may have had a host of this name
        for path in itertools.chain.from_iterable(host.folder.glob(pattern) for pattern in _FILES):
            _keep(place / path.name, functools.partial(_copy, path, place / path.name))
        _keep(place / "list-sas.json", functools.partial(_as_json, host.sas))
        _keep(place / "list-conns.json", functools.partial(_as_json, host.connections))
        for name, command in _COMMANDS.items():
            _keep(place / name, functools.partial(_output, host.exec, *command))
        if host.control_socket.exists():
            _keep(place / "status.json", functools.partial(_output, host.swanmesh, "status", "--json"))


def _copy(path: Path, copy: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, copy)
    else:
        shutil.copy(path, copy)


def _as_json(ask: Callable[[], object]) -> str:
    return json.dumps(ask(), indent=1)


def _output(run: Callable[..., subprocess.CompletedProcess[str]], *command: str) -> str:
    done = run(*command, check=False, timeout=20)
    return done.stdout + done.stderr


def _keep(path: Path, ask: Callable[[], str | None]) -> None:
    """Writes what `ask` returns, or why it could not: one dead charon must not hide the rest."""
    try:
        answer = ask()
    except Exception as error:  # whatever it is, it belongs beside the failure
        path.with_name(f"{path.name}.error").write_text(repr(error))
    else:
        if answer is not None:
            path.write_text(answer)
