"""A host's files, a real control server beside them, and the command line in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from swanmesh.cli.main import main
from tests.commands import Ended
from tests.unit.control.plain_service import ServerThread, serving

CONFIG = """\
host:
  name: web1.mesh.example
  addresses: [203.0.113.1, "2001:db8::1"]
credentials:
  certificate: pki/web1.mesh.example.pem
  private_key: pki/web1.mesh.example.key
  authorities: [pki/ca.pem]
control: {socket: control.sock}
"""


@dataclass(frozen=True)
class Machine:
    """A host's folder and its commands."""

    folder: Path
    swanmesh: Callable[..., Ended]

    @property
    def config(self) -> Path:
        return self.folder / "swanmesh.yaml"

    @property
    def peers(self) -> Path:
        return self.folder / "peers.d"

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.peers.iterdir()) if self.peers.exists() else []

    def write_peer(self, file: str, text: str) -> None:
        self.peers.mkdir(exist_ok=True)
        (self.peers / file).write_text(text)


@pytest.fixture
def machine(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in ("SWANMESH_CONFIG", "SWANMESH_SOCKET", "SWANMESH_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "swanmesh.yaml").write_text(CONFIG)
    addresses = frozenset(map(ip_address, ("127.0.0.1", "203.0.113.1", "2001:db8::1")))
    monkeypatch.setattr("swanmesh.cli.offline.own_addresses", lambda: addresses)

    def swanmesh(*arguments: str) -> Ended:
        capsys.readouterr()
        status = main(["--config", str(tmp_path / "swanmesh.yaml"), *arguments])
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return Machine(tmp_path, swanmesh)


@pytest.fixture
def server(machine: Machine) -> Iterator[ServerThread]:
    with serving(machine.folder / "control.sock") as thread:
        yield thread
