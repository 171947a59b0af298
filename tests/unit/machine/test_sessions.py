"""From where people are logged in over SSH."""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from swanmesh.machine.sessions import ssh_peers

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def written(address: str) -> str:
    """An address as /proc/net/tcp has it."""
    packed = ip_address(address).packed
    words = [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4)]
    return "".join(f"{word:08X}" for word in words)


def line(local: str, port: int, remote: str, state: str = "01") -> str:
    return (
        f"   0: {written(local)}:{port:04X} {written(remote)}:C350 {state} 00000000:00000000 00:0 0 0 0 1 2\n"
    )


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    (tmp_path / "net").mkdir()
    return tmp_path


def test_established_connections_to_port_22_count(proc: Path) -> None:
    (proc / "net/tcp").write_text(
        HEAD
        + line("192.0.2.1", 22, "192.0.2.2")
        + line("192.0.2.1", 80, "192.0.2.3")
        + line("192.0.2.1", 22, "192.0.2.4", state="06")
        + line("192.0.2.1", 22, "192.0.2.9", state="0A")
    )
    (proc / "net/tcp6").write_text(
        HEAD
        + line("2001:db8::1", 22, "2001:db8::5")
        + line("::ffff:192.0.2.1", 22, "::ffff:192.0.2.6")
        + line("2001:db8::1", 2222, "2001:db8::7")
    )
    assert ssh_peers(proc=proc) == {ip_address(a) for a in ("192.0.2.2", "2001:db8::5", "192.0.2.6")}


def test_the_session_of_this_process_counts_whatever_its_port(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ssh_peers(proc=proc) == set()
    monkeypatch.setenv("SSH_CONNECTION", "2001:db8::9 50022 2001:db8::1 2222")
    assert ssh_peers(proc=proc) == {ip_address("2001:db8::9")}
    monkeypatch.setenv("SSH_CONNECTION", "what is this")
    assert ssh_peers(proc=proc) == set()


def test_sudo_takes_the_session_away_but_not_from_the_processes_above(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getppid", lambda: 30)
    for pid, above, environ in (
        (30, 20, b"USER=root\0SUDO_USER=me\0"),
        (20, 10, b"HOME=/\0SSH_CONNECTION=192.0.2.8 50022 192.0.2.1 2222\0"),
        (10, 1, b"SSH_CONNECTION=192.0.2.9 1 192.0.2.1 2222\0"),
    ):
        (proc / str(pid)).mkdir()
        (proc / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {above} 1 1 0 -1")
        (proc / str(pid) / "environ").write_bytes(environ)
    assert ssh_peers(proc=proc) == {ip_address("192.0.2.8")}


def test_the_kernels_own_table_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of this test's own, which is to no port 22."""
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.8 1 192.0.2.1 22")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr("swanmesh.machine.sessions._SSH_PORT", server.getsockname()[1])
        with socket.create_connection(server.getsockname()):
            assert ssh_peers() == {ip_address("127.0.0.1"), ip_address("192.0.2.8")}
