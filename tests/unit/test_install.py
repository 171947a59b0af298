"""`make install` as root types it over ssh: built beside, switched in one step, and only what is locked."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lab.files import shipped_settings

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@dataclass(frozen=True)
class Ended:
    status: int
    output: str


@dataclass(frozen=True)
class Place:
    """Where `make install` puts it, away from this machine's own."""

    folder: Path
    wheels: Path
    """What pip gets instead of the network."""
    destdir: bool = False

    @property
    def library(self) -> Path:
        return self.folder / "usr/lib/swanmesh"

    @property
    def versions(self) -> list[str]:
        return sorted(path.name for path in self.library.iterdir() if path.is_dir())

    @property
    def command(self) -> Path:
        return self.folder / "usr/bin/swanmesh"

    @property
    def config(self) -> Path:
        return self.folder / "etc/swanmesh"

    def make(self, *targets: str, wheels: Path | None = None) -> Ended:
        """With what sshd gives a command: bash then takes itself for a login's, and reads its start files."""
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/nonexistent",
            "SSH_CLIENT": "192.0.2.9 40000 22",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels or self.wheels),
        }
        root = "" if self.destdir else self.folder
        settings = [f"PREFIX={root}/usr", f"SYSCONFDIR={root}/etc", f"UNITDIR={root}/units", "LIVE="]
        if self.destdir:
            settings.append(f"DESTDIR={self.folder}")
        done = subprocess.run(
            ["/usr/bin/make", "--no-print-directory", *targets, *settings],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Ended(done.returncode, done.stdout)

    def tree(self) -> dict[str, bytes | str]:
        """Every file with what is in it, and every link with where it leads."""
        return {
            str(path.relative_to(self.folder)): str(path.readlink())
            if path.is_symlink()
            else path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_symlink() or path.is_file()
        }


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    fetch = ["download", "--quiet", "--require-hashes", "--only-binary", ":all:", "--no-deps"]
    subprocess.run([sys.executable, "-m", "pip", *fetch, "-d", folder, "-r", LOCK], check=True)
    return folder


@pytest.fixture(scope="module")
def first(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Ended]:
    place = Place(tmp_path_factory.mktemp("first"), wheels)
    return place, place.make("install")


@pytest.fixture
def installed(first: tuple[Place, Ended], tmp_path: Path) -> Place:
    """An installation to do anything with."""
    place = Place(tmp_path / "there", first[0].wheels)
    shutil.copytree(first[0].folder, place.folder, symlinks=True)
    for path in (place.command, place.folder / "units/swanmesh.service"):
        path.write_text(path.read_text().replace(str(first[0].folder), str(place.folder)))
    return place


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_installation_runs_and_says_what_comes_next(first: tuple[Place, Ended]) -> None:
    place, ended = first
    assert ended.status == 0, ended.output
    version = subprocess.run([place.command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.split()[-1] == PROJECT["project"]["version"]
    assert [_mode(place.config / name) for name in ("pki", "peers.d", "swanmesh.yaml")] == [
        0o700,
        0o755,
        0o644,
    ]
    assert f"ExecStart={place.command} run" in (place.folder / "units/swanmesh.service").read_text()
    guard = (place.folder / "units/swanmesh-guard.service").read_text()
    assert f"-I -S {place.library}/apply-guard /var/lib/swanmesh/guard" in guard
    assert (place.library / "apply-guard").read_bytes() == (ROOT / "swanmesh/kernel/boot.py").read_bytes()
    assert (place.folder / "etc/modules-load.d/swanmesh.conf").exists()
    shipped = {path.name for path in (place.folder / "etc/strongswan.d").iterdir()}
    assert shipped == set(shipped_settings())
    commands = re.findall(r"^  (\S+ \S+(?: \S+)*?)(?:  +#.*)?$", ended.output, re.M)
    assert commands == [
        "swanmesh check",
        "systemctl restart strongswan",
        "systemctl enable --now swanmesh",
    ]


def test_the_installation_holds_nothing_that_installs(first: tuple[Place, Ended]) -> None:
    (version,) = first[0].versions
    packages = next((first[0].library / version / "lib").glob("python*/site-packages"))
    names = {path.name.split("-")[0] for path in packages.glob("*.dist-info")}
    assert "swanmesh" in names
    assert names.isdisjoint({"pip", "setuptools"})


@pytest.fixture
def running(installed: Place) -> Iterator[str]:
    """The version of an old installation that a process was started from."""
    python = installed.library / "0.0.2-running/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    process = subprocess.Popen([python, "-c", "input()"], stdin=subprocess.PIPE)
    yield python.parents[1].name
    process.communicate(b"\n")


def test_an_upgrade_switches_and_keeps_what_is_in_use(installed: Place, running: str) -> None:
    (before,) = set(installed.versions) - {running}
    (installed.library / "0.0.1-left-by-a-killed-build/lib").mkdir(parents=True)
    edited = installed.config / "swanmesh.yaml"
    edited.write_text("host: {name: web1.mesh.example}\n")
    ended = installed.make("install")
    assert ended.status == 0, ended.output
    assert "systemctl restart swanmesh" in ended.output
    assert "systemctl restart strongswan" not in ended.output
    (new,) = set(installed.versions) - {before, running}
    assert f"/{new}/bin/python" in installed.command.read_text()
    assert set(installed.versions) == {before, running, new}
    assert edited.read_text() == "host: {name: web1.mesh.example}\n"
    assert edited.with_name("swanmesh.yaml.new").read_bytes() == (ROOT / "conf/swanmesh.yaml").read_bytes()


def _nothing(wheels: Path) -> None:
    for wheel in wheels.iterdir():
        wheel.unlink()


def _another_file(wheels: Path) -> None:
    wheel = next(wheels.glob("click-*"))
    wheel.write_bytes(wheel.read_bytes() + b"\0")


@pytest.mark.parametrize("spoil", [_nothing, _another_file])
def test_a_download_that_fails_leaves_what_is_installed_as_it_was(
    installed: Place, tmp_path: Path, spoil: object
) -> None:
    assert callable(spoil)
    wheels = shutil.copytree(installed.wheels, tmp_path / "spoiled")
    spoil(wheels)
    before = installed.tree()
    ended = installed.make("install", wheels=wheels)
    assert ended.status != 0
    assert "what was installed before is as it was" in ended.output
    assert "hash" in ended.output.lower() or "no matching distribution" in ended.output.lower()
    assert installed.tree() == before


def test_a_packager_finds_no_trace_of_the_folder_it_was_built_in(wheels: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "package", wheels, destdir=True)
    ended = place.make("install")
    assert ended.status == 0, ended.output
    needle = str(place.folder).encode()
    found = [
        name
        for name, held in place.tree().items()
        if needle in (os.fsencode(held) if isinstance(held, str) else held)
    ]
    assert found == []
    assert "exec /usr/lib/swanmesh/" in place.command.read_text()


def test_uninstalling_says_what_stays_in_force_and_leaves_what_is_the_administrators(
    installed: Place,
) -> None:
    (installed.folder / "etc/modules-load.d/swanmesh.conf").write_text("# none, thank you\n")
    (installed.config / "pki/web1.key").write_text("key")
    ended = installed.make("uninstall")
    assert ended.status == 0, ended.output
    assert "stays in force" in ended.output
    assert "PURGE=1" in ended.output
    examples = ("etc/swanmesh/hooks.d", "etc/swanmesh/renewal.d")
    left = {name for name in installed.tree() if not name.startswith(examples)}
    assert left == {
        "etc/modules-load.d/swanmesh.conf",
        *(f"etc/strongswan.d/{name}" for name in shipped_settings()),
        "etc/swanmesh/bench.conf.disabled",
        "etc/swanmesh/pki/web1.key",
        "etc/swanmesh/swanmesh.yaml",
    }


def test_purging_that_fails_uninstalls_nothing(installed: Place) -> None:
    """What tells charon to let go would be gone with it."""
    (installed.config / "swanmesh.yaml").write_text("charon: {socket: there-is-none}\n")
    before = installed.tree()
    ended = installed.make("uninstall", "PURGE=1")
    assert ended.status != 0
    assert installed.tree() == before


def _locked() -> dict[str, tuple[Requirement, int]]:
    """Name -> what is locked, and how many files of it are allowed."""
    text = re.sub(r"^#.*\n", "", LOCK.read_text(), flags=re.M).replace("\\\n", " ")
    entries = (line.split("--hash=sha256:") for line in text.splitlines())
    requirements = ((Requirement(words[0]), len(words) - 1) for words in entries)
    return {requirement.name: (requirement, files) for requirement, files in requirements}


def _asked() -> Sequence[Requirement]:
    return [
        Requirement(text)
        for text in (*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"])
    ]


@pytest.mark.parametrize("asked", _asked(), ids=str)
def test_what_the_project_asks_for_is_locked_in_a_version_that_it_allows(asked: Requirement) -> None:
    locked, _ = _locked()[asked.name]
    (pin,) = locked.specifier
    assert pin.operator == "=="
    assert asked.specifier.contains(pin.version)


def test_everything_locked_has_hashes() -> None:
    assert min(files for _, files in _locked().values()) > 0


def test_no_comment_stands_where_make_takes_it_for_a_command() -> None:
    assert re.findall(r"^\t\s*#.*", (ROOT / "Makefile").read_text(), re.M) == []


def test_the_unit_and_the_boot_load_the_same_modules() -> None:
    conf = (ROOT / "conf/modules-load.d/swanmesh.conf").read_text().splitlines()
    modules = {line for line in conf if line and line[0] != "#"}
    unit = (ROOT / "systemd/swanmesh.service").read_text()
    for key in ("Wants", "After"):
        lines = re.findall(rf"^{key}=(.*)", unit, re.M)
        assert {name for line in lines for name in re.findall(r"modprobe@(\w+)\.service", line)} == modules
