"""The guard's file: what the service keeps, and what the next boot takes of it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from swanmesh.core.guard.policies import Cover, Ground, policies_of
from swanmesh.files.write import NotWritten
from swanmesh.kernel import boot
from swanmesh.kernel.guard import FILE, kept, write_file

PARTS = (Cover(ip_address("203.0.113.2"), 32, closed=True, source="web2"), Ground(4))


def test_what_is_kept_reads_as_what_stands(tmp_path: Path) -> None:
    write_file(tmp_path / "state", PARTS)
    found = kept(tmp_path / "state")
    assert {policy.selector: policy for policy in found} == policies_of(PARTS[0]) | policies_of(PARTS[1])
    assert [p.priority for p in found] == sorted(p.priority for p in found), "what passes comes first"
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / FILE).stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match="state"):
        write_file(tmp_path / "missing" / "state", PARTS)


def test_the_file_is_given_to_the_kernel_message_by_message(tmp_path: Path) -> None:
    write_file(tmp_path, PARTS)
    content = (tmp_path / FILE).read_bytes()
    assert b"".join(boot._messages(content)) == content


@pytest.mark.parametrize("cut", [1, 15, 20, 100])
def test_a_damaged_file_is_refused_whole(tmp_path: Path, cut: int) -> None:
    write_file(tmp_path, PARTS)
    content = (tmp_path / FILE).read_bytes()
    with pytest.raises(ValueError, match="damaged"):
        list(boot._messages(content[:-cut]))


def run(path: Path) -> subprocess.CompletedProcess[str]:
    """As swanmesh-guard.service does."""
    command = [sys.executable, "-I", "-S", str(Path(boot.__file__)), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to somebody else")
def test_a_file_that_others_could_have_written_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    write_file(tmp_path / "state", ())
    path = tmp_path / "state" / FILE
    for at, mode, owner in ((path, 0o666, 0), (path.parent, 0o777, 0), (path, 0o600, 12345)):
        before = stat.S_IMODE(at.stat().st_mode)
        at.chmod(mode)
        os.chown(at, owner, 0)
        ended = run(path)
        assert ended.returncode == 1 and "not believed" in ended.stderr, ended
        at.chmod(before)
        os.chown(at, 0, 0)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    ended = run(tmp_path / FILE)
    assert ended.returncode == 1 and "No such file" in ended.stderr


def test_it_needs_nothing_but_the_interpreter() -> None:
    script = f"import runpy, sys; runpy.run_path({boot.__file__!r}); print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", script]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.partition(".")[0] in ("swanmesh", "asyncio", "pathlib")]
