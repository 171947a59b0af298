"""The control socket as a file: its mode and owner, what is in the way, and what is left behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from swanmesh.control.client import Client
from swanmesh.control.listener import SocketUnusable, listen
from tests.unit.control.plain_service import serving


def test_mode_and_group(tmp_path: Path) -> None:
    listener = listen(tmp_path / "control.sock", None)
    status = (tmp_path / "control.sock").stat()
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert status.st_uid == os.geteuid()
    assert stat.S_IMODE((tmp_path / "control.sock.lock").stat().st_mode) == 0o600
    listener.close()
    assert not (tmp_path / "control.sock").exists()


def test_mode_does_not_hang_on_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        listener = listen(tmp_path / "control.sock", None)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o660
    listener.close()


def test_missing_folder_is_made(tmp_path: Path) -> None:
    listener = listen(tmp_path / "run" / "control.sock", None)
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    listener.close()


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(path):
        assert Client(path).status().schema == 1


def test_socket_of_a_killed_service_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            listen(path, None)
            os.write(writer, b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"!"
    os.close(reader)
    with pytest.raises(SocketUnusable, match="another service is using it"):
        listen(path, None)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    listen(path, None).close()


def test_live_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with serving(path):
        before = path.stat().st_ino
        with pytest.raises(SocketUnusable, match="another service is using it"):
            listen(path, None)
        assert path.stat().st_ino == before
        assert Client(path).status().schema == 1


def test_live_socket_of_a_program_that_knows_no_lock_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        with pytest.raises(SocketUnusable, match="another service is using it"):
            listen(path, None)
        # The first probe fills its backlog, so that the second cannot connect: it is live all the same.
        with pytest.raises(SocketUnusable, match="another service is using it"):
            listen(path, None)
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "fifo", "link"])
def test_what_is_no_socket_is_refused_and_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "control.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/run/elsewhere")
    with pytest.raises(SocketUnusable, match="is no socket"):
        listen(path, None)
    assert os.path.lexists(path)


def test_lock_file_is_not_followed_elsewhere(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "control.sock.lock").symlink_to(victim)
    with pytest.raises(SocketUnusable, match="lock file"):
        listen(tmp_path / "control.sock", None)
    assert not victim.exists()


def test_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(SocketUnusable, match="can be written by others; chmod go-w"):
        listen(folder / "control.sock", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away")
def test_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with pytest.raises(SocketUnusable, match="belongs to uid 65534"):
        listen(folder / "control.sock", None)


def test_unknown_group_and_long_path_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SocketUnusable, match=r"control\.group does not exist"):
        listen(tmp_path / "control.sock", "no-such-group-here")
    with pytest.raises(SocketUnusable, match="shorter path"):
        listen(tmp_path / ("x" * 120), None)
    with pytest.raises(SocketUnusable, match="folder cannot be used"):
        listen(tmp_path / "a" / "b" / "control.sock", None)


def test_a_socket_file_of_another_is_not_removed_at_stop(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with serving(path) as server:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            server.stop()
            assert path.exists()
