"""Records of what holds instead of the files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swanmesh.config import override
from swanmesh.core.model import InvalidInput
from swanmesh.core.settings.override import HOST, left
from swanmesh.core.settings.policy import Policy
from swanmesh.files.write import NotWritten


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_a_trial_is_recorded_and_read_again(folder: Path) -> None:
    record = override.begin_trial(folder, Policy.REQUIRE, {HOST: Policy.PREFER, "web2": None}, 60.0)
    found = override.read_overrides(folder).trial
    assert found == record
    assert found is not None and 59.0 < found.left() <= 60.0
    held = override.read_overrides(folder).in_force()
    assert held.policy("web2", None) is Policy.REQUIRE
    assert held.policy("web2", Policy.OFF) is Policy.OFF
    assert held.policy("web3", None) is None
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(InvalidInput, match="another change of policy is on trial"):
        override.begin_trial(folder, Policy.OFF, {HOST: Policy.PREFER}, 60.0)
    override.end_trial(folder)
    assert override.read_overrides(folder).trial is None
    override.end_trial(folder)


def test_disabled_is_recorded_until_it_is_enabled(folder: Path) -> None:
    assert not override.enable(folder)
    assert override.disable(folder)
    assert not override.disable(folder)
    assert override.read_overrides(folder).in_force().disabled
    assert override.enable(folder)
    assert not override.read_overrides(folder).in_force().disabled


def test_on_a_full_disk_nothing_is_recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(NotWritten, match="no space"):
            override.begin_trial(folder, Policy.REQUIRE, {HOST: Policy.PREFER}, 60.0)
        with pytest.raises(NotWritten, match="no space"):
            override.disable(folder)
    assert override.read_overrides(folder) == override.Overrides()
    assert list(folder.iterdir()) == []


def test_a_record_that_is_over_is_forgotten_unless_another_took_its_place(folder: Path) -> None:
    first = override.begin_trial(folder, Policy.REQUIRE, {HOST: Policy.PREFER}, 60.0)
    override.end_trial(folder)
    second = override.begin_trial(folder, Policy.OFF, {HOST: Policy.PREFER}, 60.0)
    override.forget_trial(folder, first)
    assert override.read_overrides(folder).trial == second
    override.forget_trial(folder, second)
    assert override.read_overrides(folder).trial is None


@pytest.mark.parametrize("text", ["", "{}", '{"policy": "perhaps"}', "[1]", "\xff"])
def test_a_record_that_says_nothing_valid_is_told(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "trial.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"trial\.json"):
        override.read_overrides(folder)


def test_a_record_that_others_could_write_is_not_believed(folder: Path) -> None:
    override.disable(folder)
    assert json.loads((folder / "disabled.json").read_text())["since"] > 0
    (folder / "disabled.json").chmod(0o666)
    with pytest.raises(InvalidInput, match=r"disabled\.json"):
        override.read_overrides(folder)


_seconds = st.floats(-1e9, 1e9)


@given(st.floats(1, 1e5), _seconds, _seconds)
def test_a_trial_never_gets_longer(within: float, slept: float, wall: float) -> None:
    remaining = left(within, slept=slept, wall=wall)
    assert 0 <= remaining <= within
    if slept >= within or wall >= within or max(slept, wall) < 0:
        assert remaining == 0
