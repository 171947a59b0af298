"""The programs that are shipped for renewing: each gets a certificate through a stand-in of what it calls."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from swanmesh.pki.authority import Authority
from swanmesh.pki.enrolment import Place, install, request
from swanmesh.pki.renewal import renew
from tests.charon.helpers import asynchronous
from tests.unit.config.elsewhere import REPOSITORY
from tests.unit.hooks.hooking import write_hook

NAME = "web1.mesh.example"
SHIPPED = REPOSITORY / "conf/renewal.d"
DAY = 86400.0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A host that was enrolled sixty days ago, and its authority, in the folder `ca`."""
    pki = tmp_path / "pki"
    pki.mkdir(mode=0o700)
    place = Place(
        name=NAME,
        addresses=(ip_address("203.0.113.1"),),
        certificate=pki / f"{NAME}.pem",
        private_key=pki / f"{NAME}.key",
        authorities=(pki / "ca.pem",),
    )
    folder = tmp_path / "ca"
    Authority.create(folder, now=time.time() - 100 * DAY)
    sign = [sys.executable, "-m", "swanmesh", "ca", "sign", "-", "--yes", "--days", "30"]
    asked = request(place, "p256", now=time.time())
    done = subprocess.run([*sign, "--directory", str(folder)], input=asked, capture_output=True, check=True)
    install(place, done.stdout, "answer", now=time.time())
    return place


def stand_in(folder: Path, name: str, text: str) -> dict[str, str]:
    """An environment in which the program of this name does so, and notes its arguments."""
    tools = folder / "tools"
    tools.mkdir()
    write_hook(tools / name, f'printf "%s\\n" "$@" > {folder}/arguments\n{text}')
    return {"PATH": f"{tools}:/usr/bin:/bin"}


@asynchronous
async def test_ssh(place: Place, tmp_path: Path) -> None:
    sign = [sys.executable, "-m", "swanmesh", "ca", "sign", "-", "--yes", "--only-renew", NAME]
    forced = shlex.join([*sign, "--directory", str(tmp_path / "ca")])
    environment = stand_in(tmp_path, "ssh", f"cd {REPOSITORY} && exec {forced}")
    program = tmp_path / "renewal.d"
    program.mkdir()
    (program / "ssh").write_bytes((SHIPPED / "ssh").read_bytes())
    (program / "ssh").chmod(0o755)
    command = [str(program / "ssh"), "ca@ca.mesh.example"]
    made = await renew(place, command, environment=environment, time_limit=30, clock=time.time)
    assert made.not_valid_after_utc.timestamp() > time.time() + 60 * DAY
    arguments = (tmp_path / "arguments").read_text().split("\n")
    assert arguments[-2] == "ca@ca.mesh.example"
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", str(program / "id")} <= set(arguments)


@asynchronous
async def test_step_ca(place: Place, tmp_path: Path) -> None:
    sign = [sys.executable, "-m", "swanmesh", "ca", "sign", "--yes", "--replace"]
    signing = shlex.join([*sign, "--directory", str(tmp_path / "ca")])
    last_two = "while [ $# -gt 2 ]; do shift; done\n"
    environment = stand_in(
        tmp_path, "step", f'{last_two}cp "$1" {tmp_path}/asked\ncd {REPOSITORY} && {signing} "$1" > "$2"'
    )
    program = tmp_path / "step-ca"
    program.write_bytes((SHIPPED / "step-ca").read_bytes())
    program.chmod(0o755)
    command = [str(program), "https://ca.mesh.example", str(place.certificate.with_suffix(""))]
    made = await renew(place, command, environment=environment, time_limit=30, clock=time.time)
    assert made.not_valid_after_utc.timestamp() > time.time() + 60 * DAY
    # The subject of its token, and what it compares that with (command/ca/sign.go).
    asked = x509.load_pem_x509_csr((tmp_path / "asked").read_bytes())
    assert [one.value for one in asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [NAME]
    arguments = (tmp_path / "arguments").read_text().split("\n")
    for option, value in (
        ("--root", place.authorities[0]),
        ("--x5c-cert", place.certificate),
        ("--x5c-key", place.private_key),
    ):
        assert arguments[arguments.index(option) + 1] == str(value)


@pytest.mark.parametrize("name", ["ssh", "step-ca"])
def test_shellcheck_finds_nothing(name: str) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, SHIPPED / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
