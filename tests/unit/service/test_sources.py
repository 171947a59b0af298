"""From this host's files to what is in force: what a slip in them does, and what it does not."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from swanmesh.core.connections import peer_of
from swanmesh.core.inputs.removal import held_problems
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import InvalidInput
from swanmesh.pki.authority import Authority
from swanmesh.service.sources import Sources
from tests.unit.core.ideal import IdealCharon, run

NAME = "web1.mesh.example"
OWN = "203.0.113.1"


class Host:
    """A host's files, its service without a loop, and a charon that outlives it."""

    def __init__(self, folder: Path, pki: Path) -> None:
        self.folder, self.pki = folder, pki
        self.peers = folder / "peers.d"
        self.peers.mkdir()
        self.present = {OWN}
        self.now = 0.0
        self.configure()
        self.sources = self._sources()
        self.charon = IdealCharon(self.sources.settings)
        self._run()

    def configure(self, *addresses: str, **keys: object) -> None:
        document = {
            "host": {"name": NAME, "addresses": list(addresses) or [OWN]},
            "credentials": {
                "certificate": str(self.pki / f"{NAME}.pem"),
                "private_key": str(self.pki / f"{NAME}.key"),
                "authorities": [str(self.pki / "ca.pem")],
            },
        }
        (self.folder / "swanmesh.yaml").write_text(yaml.safe_dump({**document, **keys}))

    def _sources(self) -> Sources:
        return Sources(
            self.folder / "swanmesh.yaml",
            addresses=lambda: frozenset(map(ip_address, self.present)),
        )

    def _run(self) -> None:
        self.mesh = Mesh(self.sources.settings, seed=1)
        self.sources.apply(self.mesh, self.sources.first(self.mesh.state.registry), self.now)
        self.mesh.charon_back("5.9.8", self.charon.holdings(), self.now)
        self.wait()

    def restart(self) -> None:
        """The service; charon goes on."""
        self.now += 1.0
        self.sources = self._sources()
        self._run()

    def reload(self) -> None:
        """Everything is read again, and it is waited for what follows."""
        self.now += 1.0
        self.sources.look_at_addresses()
        registry = self.mesh.state.registry
        self.sources.apply(self.mesh, self.sources.read(None, registry), self.now)
        self.wait()

    def wait(self) -> None:
        run(self.mesh, self.charon, self.now, most=300)
        self.now += 1000.0

    def write(self, file: str, name: str, *addresses: str) -> None:
        text = yaml.safe_dump({"name": name, "addresses": list(addresses)})
        (self.peers / file).write_text(text)

    @property
    def loaded(self) -> set[str]:
        """The peers that charon has a connection for."""
        return {peer_of(name) for name in self.charon.loaded} - {"neighbour-discovery"}

    @property
    def problems(self) -> str:
        state = self.mesh.state
        found = (*self.sources.problems, *state.registry.problems, *held_problems(state))
        return "\n".join(map(str, found))


@pytest.fixture(scope="session")
def pki() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="swanmesh-test-"))
    authority = Authority.create(folder / "pki", now=time.time())
    authority.issue(NAME, [], now=time.time()).write(folder / "pki")
    yield folder / "pki"
    shutil.rmtree(folder)


@pytest.fixture
def host(tmp_path: Path, pki: Path) -> Host:
    host = Host(tmp_path, pki)
    for number in range(2, 10):
        host.write(f"web{number}.yaml", f"web{number}", f"203.0.113.{number}")
    host.reload()
    assert len(host.loaded) == 8
    return host


def test_a_file_under_a_wrong_name_removes_nobody(host: Host) -> None:
    (host.peers / "web2.yaml").rename(host.peers / "web2.yml")
    for again in (host.reload, host.restart):
        again()
        assert len(host.loaded) == 8
        assert "web2.yml: is not read" in host.problems
        assert "rename it to web2.yaml" in host.problems
    (host.peers / "web2.yml").unlink()
    host.reload()
    assert len(host.loaded) == 7 and host.problems == ""


def test_another_peers_folder_that_is_empty_removes_nobody(host: Host) -> None:
    (host.folder / "other.d").mkdir()
    host.configure(peers="other.d")
    host.reload()
    assert len(host.loaded) == 8 and "8 of 8 peers" in host.problems
    host.restart()
    assert len(host.loaded) == 8 and "8 peers that no file describes" in host.problems
    host.configure(peers="missing.d")
    host.reload()
    assert len(host.loaded) == 8 and "missing.d: cannot be read" in host.problems


def test_the_same_peers_in_another_folder_go_on(host: Host) -> None:
    before = dict(host.charon.sas)
    host.peers.rename(host.folder / "other.d")
    host.configure(peers="other.d")
    host.reload()
    assert len(host.loaded) == 8 and host.charon.sas.keys() == before.keys() and host.problems == ""


def test_a_contradiction_keeps_its_peer_through_settings_and_restarts(host: Host) -> None:
    """The first comes into force where both are new; the other's connection is left alone."""
    host.write("web9.yaml", "web9", "203.0.113.2")
    before = dict(host.charon.sas)
    host.reload()
    host.configure(initiation={"takeover": "21s"})
    host.reload()
    assert host.charon.sas.keys() == before.keys() and "the address stands in" in host.problems
    host.restart()
    host.restart()
    assert host.charon.sas.keys() == before.keys() and "the address stands in" in host.problems
    host.write("web9.yaml", "web9", "203.0.113.9")
    host.reload()
    assert host.charon.sas.keys() == before.keys() and host.problems == ""


def test_of_two_that_contradict_at_a_start_charon_tells_which_was_there(host: Host) -> None:
    host.write("web2.yaml", "web2", "203.0.113.9")
    before = dict(host.charon.sas)
    for again in (host.reload, host.restart, host.restart):
        again()
        assert host.charon.sas.keys() == before.keys()
        assert "web2.yaml: addresses[0] (203.0.113.9): the address stands in" in host.problems
    host.write("web9.yaml", "web9", "203.0.113.19")
    host.reload()
    assert host.problems == "" and len(host.loaded) == 8 == len(host.charon.sas)


def test_an_address_that_no_interface_has_ends_nothing(host: Host) -> None:
    before = dict(host.charon.sas)
    host.configure("203.0.113.111")
    host.reload()
    assert host.charon.sas.keys() == before.keys()
    assert "host.addresses[0] (203.0.113.111): no interface of this host has it" in host.problems
    assert "would end what works for 203.0.113.1" in host.problems
    host.restart()
    assert before.keys() <= host.charon.sas.keys()
    assert "host.addresses[0] (203.0.113.111): no interface of this host has it" in host.problems
    host.configure(OWN)
    host.reload()
    assert before.keys() <= host.charon.sas.keys() and host.problems == ""


def test_an_address_takes_effect_when_it_arrives(host: Host) -> None:
    host.configure("203.0.113.111")
    host.reload()
    host.present = {"203.0.113.111"}
    assert host.sources.look_at_addresses()
    host.reload()
    assert host.problems == "" and not host.sources.look_at_addresses()
    assert {str(pair.addresses.local) for pair in host.mesh.state.pairs if pair.addresses} == {
        "203.0.113.111"
    }


def test_an_address_that_comes_later_is_no_obstacle_at_the_start(tmp_path: Path, pki: Path) -> None:
    host = Host(tmp_path, pki)
    host.present = set()
    host.write("web2.yaml", "web2", "203.0.113.2")
    host.restart()
    assert host.loaded == {"web2"} and "no interface of this host has it" in host.problems
    host.present = {OWN}
    host.reload()
    assert host.problems == ""


def test_changes_of_addresses_that_exist_are_followed(host: Host) -> None:
    host.present |= {"203.0.113.111"}
    host.configure("203.0.113.111")
    host.reload()
    assert host.problems == "" and len(host.loaded) == 8
    host.configure("203.0.113.111", "203.0.113.112")
    host.reload()
    assert host.sources.settings.host.addresses[1:] == (ip_address("203.0.113.112"),), "nothing ends by it"
    assert "host.addresses[1] (203.0.113.112)" in host.problems


@pytest.mark.parametrize("what", ["swanmesh.yaml", ".", "peers.d", "peers.d/web2.yaml"])
def test_what_others_could_write_changes_nothing(host: Host, what: str) -> None:
    path = (host.folder / what).resolve()
    mode = path.stat().st_mode
    path.chmod(mode | 0o022)
    before = {number: sa for number, sa in host.charon.sas.items() if "web2" in sa.connection}
    host.write("web2.yaml", "web2", "203.0.113.22")
    host.configure(policy="prefer")
    host.reload()
    assert f"run: chmod go-w {path}" in host.problems
    assert what == "swanmesh.yaml" or before.keys() <= host.charon.sas.keys()
    if what in ("swanmesh.yaml", "."):
        assert host.sources.settings.policy == "require"
        with pytest.raises(InvalidInput, match="chmod go-w"):
            host.restart()
    else:
        host.restart()
        assert before.keys() <= host.charon.sas.keys()
    path.chmod(mode)
    host.reload()
    assert host.problems == "" and host.sources.settings.policy == "prefer"


FILES = ("a.yaml", "b.yaml", "c.yaml")
NAMES = ("p1", "p2", "p3", "p4")
ADDRESSES = ("203.0.113.11", "203.0.113.12", "203.0.113.13", "203.0.113.14")
steps = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(FILES), st.sampled_from(NAMES), st.sampled_from(ADDRESSES)),
    st.tuples(st.just("break"), st.sampled_from(FILES)),
    st.tuples(st.just("delete"), st.sampled_from(FILES)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("settings"), st.sampled_from(["20s", "21s"])),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=16))
def test_nobody_goes_whose_last_valid_file_is_there(pki: Path, path: list[tuple[str, ...]]) -> None:
    """Whatever the order of valid, contradicting and broken versions, with restarts of the service between: a
    peer is unloaded only after its file was deleted or says, in force, something else. And however it was
    come to, files that are right in the end give the same."""
    with tempfile.TemporaryDirectory(prefix="swanmesh-test-") as folder:
        host = Host(Path(folder), pki)
        file_of: dict[str, str] = {}
        for kind, *words in path:
            match kind, *words:
                case "write", file, name, address:
                    host.write(file, name, address)
                case "break", file:
                    (host.peers / file).write_text("name: [")
                case "delete", file:
                    (host.peers / file).unlink(missing_ok=True)
                    file_of = {name: at for name, at in file_of.items() if at != file}
                case "settings", value:
                    host.configure(initiation={"takeover": value})
            host.restart() if kind == "restart" else host.reload()
            registry = host.mesh.state.registry
            for source, peer in registry.peers.items():
                file = Path(source).name
                if (host.peers / file).exists():
                    file_of = {name: at for name, at in file_of.items() if at != file}
                    file_of[peer.name] = file
            assert file_of.keys() <= host.loaded
        for file, name, address in zip(FILES, NAMES, ADDRESSES, strict=False):
            host.write(file, name, address)
        host.reload()
        assert host.loaded == set(NAMES[:3]) and host.problems == ""
        assert len(host.charon.loaded) == 3 and len(host.charon.sas) == 3
