"""Files as hostile input: what is read of them, and which are believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swanmesh.core.model import InvalidInput
from swanmesh.files.read import read_bytes, read_trusted
from tests.unit.config.elsewhere import NOBODY

LIMIT = 64 * 1024


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(10 * 1024**4)  # ten terabytes of hole: reading would not end
    with pytest.raises(InvalidInput, match="is larger than 64 KiB"):
        read_bytes(path, LIMIT)


def test_a_file_may_have_just_the_allowed_size(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"x" * LIMIT)
    assert read_bytes(path, LIMIT) == b"x" * LIMIT
    path.write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(InvalidInput, match="is larger"):
        read_bytes(path, LIMIT)


def test_a_file_that_tells_no_size_is_read_no_further_than_allowed() -> None:
    with pytest.raises(InvalidInput, match="is larger than"):
        read_bytes(Path("/proc/self/smaps"), 1024)  # its size is 0 until it is read


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.yaml"
    os.mkfifo(path)
    with pytest.raises(InvalidInput, match="is not a regular file"):
        read_bytes(path, LIMIT)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_behind_a_link_is_refused(tmp_path: Path, device: str) -> None:
    path = tmp_path / "device.yaml"
    path.symlink_to(device)
    with pytest.raises(InvalidInput, match="is not a regular file"):
        read_bytes(path, LIMIT)


def test_what_cannot_be_opened_is_named_with_a_remedy(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "none.yaml", "no such file"),
        (loop, "symbolic link"),
        (tmp_path / "file" / "a.yaml", "not a directory"),
        (tmp_path / ("a" * 300), "name too long"),
        (tmp_path, "is not a regular file"),
    ):
        with pytest.raises(InvalidInput, match=message) as caught:
            read_bytes(path, LIMIT)
        assert str(path) in str(caught.value)
        assert caught.value.problems[0].remedy


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"content")
    return path


def refusal(path: Path, **how: bool) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_trusted(path, LIMIT, key="some.key", **how)  # type: ignore[arg-type]
    (problem,) = caught.value.problems
    assert (problem.file, problem.key) == (str(path), "some.key")
    return str(problem)


@pytest.mark.parametrize("mode", [0o666, 0o662, 0o664])
def test_a_file_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    assert read_trusted(file, LIMIT) == b"content"
    file.chmod(mode)
    assert f"can be changed by others (mode {mode:04o}); run: chmod go-w {file}" in refusal(file)


def test_a_file_that_others_may_replace_is_refused(file: Path) -> None:
    file.parent.chmod(0o777)
    assert f"run: chmod go-w {file.parent}" in refusal(file)
    file.parent.chmod(0o755)
    file.parent.parent.chmod(0o775)
    assert f"run: chmod go-w {file.parent.parent}" in refusal(file)
    file.parent.parent.chmod(0o1777)
    assert read_trusted(file, LIMIT) == b"content"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, NOBODY, -1)
    assert f"belongs to user {NOBODY}; if it may be trusted, run: chown root {file}" in refusal(file)


def test_a_link_is_as_good_as_where_it_leads(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_trusted(link, LIMIT, folder=tmp_path) == b"content"
    file.parent.chmod(0o777)
    assert f"run: chmod go-w {file.parent}" in refusal(link)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660])
def test_a_secret_that_others_may_read_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert f"has mode {mode:04o}: others can read or change it; run: chmod 0600 {file}" in refusal(
        file, secret=True
    )
    file.chmod(0o600)
    assert read_trusted(file, LIMIT, secret=True) == b"content"
