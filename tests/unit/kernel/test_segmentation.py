"""The kernel's modules and ciphers, as /sys, /proc and /lib/modules show them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from swanmesh.core.xfrm import Module, Segmenting, XfrmState
from swanmesh.kernel import segmentation


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """/lib/modules of a kernel that has nothing."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "modules.builtin").write_text("kernel/net/ipv4/esp4.ko\n")
    (folder / "modules.dep").write_text("kernel/net/ipv4/ah4.ko:\n")
    return folder


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/sys/module."""
    folder = tmp_path / "loaded"
    folder.mkdir()
    monkeypatch.setattr(segmentation, "_LOADED", folder)
    return folder


def load(loaded: Path, name: str, users: int) -> None:
    (loaded / name).mkdir()
    (loaded / name / "initstate").write_text("live\n")
    (loaded / name / "refcnt").write_text(f"{users}\n")


def state(made: int, address: str = "192.0.2.1", protocol: int = 50) -> XfrmState:
    return XfrmState(ipaddress.ip_address(address), "c0000001", protocol, True, 1, made)


def test_each_way_of_having_a_module(loaded: Path, modules: Path) -> None:
    def found() -> Module:
        return segmentation.module("esp4_offload", loaded=loaded, modules=modules)

    assert found() is Module.ABSENT
    (modules / "modules.dep").write_text("kernel/net/ipv4/esp4_offload.ko.xz: kernel/net/ipv4/esp4.ko.xz\n")
    assert found() is Module.NOT_LOADED
    (modules / "modules.builtin").write_text("kernel/net/ipv4/esp4_offload.ko\n")
    assert found() is Module.BUILT_IN
    load(loaded, "esp4_offload", 0)
    assert found() is Module.LOADED


def test_where_the_modules_cannot_be_read_it_is_not_known(loaded: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert segmentation.module("esp4_offload", loaded=loaded, modules=missing) is Module.UNKNOWN


def test_the_oldest_states_are_those_beyond_the_modules_users(loaded: Path) -> None:
    load(loaded, "esp4_offload", 2)
    load(loaded, "esp6_offload", 9)
    states = [state(30), state(10), state(20), state(40), state(5, protocol=51), state(0)]
    states.append(state(50, "2001:db8::1"))
    assert segmentation.segmenting(states) == (
        Segmenting(4, Module.LOADED, 4, 2, 20),
        Segmenting(6, Module.LOADED, 1),
    )


_ENTRY = "name : rfc4106(gcm(aes))\ndriver : {0}\nmodule : kernel\npriority : {1}\ninternal : {2}\n\n"
_GENERIC = "rfc4106(gcm_base(ctr(aes-generic),ghash-generic))"


@pytest.mark.parametrize(
    ("entries", "driver"),
    [
        ([(_GENERIC, 100, "no")], _GENERIC),
        ([(_GENERIC, 100, "no"), ("rfc4106-gcm-aesni", 400, "no")], ""),
        ([(_GENERIC, 100, "no"), ("__rfc4106-gcm-aesni", 400, "yes")], _GENERIC),
        ([("rfc4106(gcm_base(ctr-aes-aesni,ghash-clmulni))", 400, "no")], ""),
        ([], ""),
    ],
)
def test_a_generic_cipher_is_named_if_it_is_the_one_taken(
    tmp_path: Path, entries: list[tuple[str, int, str]], driver: str
) -> None:
    file = tmp_path / "crypto"
    file.write_text("name : sha256\ndriver : sha256-generic\npriority : 100\n\n")
    with file.open("a") as more:
        more.writelines(_ENTRY.format(*entry) for entry in entries)
    assert segmentation.generic_cipher(file) == driver
    assert segmentation.generic_cipher(tmp_path / "nothing") == ""
