"""What this machine says of its links and processors."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from swanmesh.core.model import AddressPair
from swanmesh.machine import processors
from swanmesh.machine.devices import Device, device, speed


@pytest.mark.parametrize(("text", "mbit"), [("1000\n", 1000), ("-1\n", None), ("0\n", None), ("", None)])
def test_speed_is_none_where_the_device_knows_none(tmp_path: Path, text: str, mbit: int | None) -> None:
    (tmp_path / "eth0").mkdir()
    (tmp_path / "eth0" / "speed").write_text(text)
    assert speed("eth0", tmp_path) == mbit
    assert speed("eth1", tmp_path) is None


def test_the_device_is_the_one_that_is_routed_through() -> None:
    loopback = ip_address("127.0.0.1")
    assert device(AddressPair(loopback, ip_address("127.0.0.2"))) == Device(65536, None)
    with pytest.raises(OSError, match="no route to"):
        device(AddressPair(ip_address("192.0.2.1"), ip_address("192.0.2.2")))


def test_busy_is_what_is_neither_idle_nor_waiting(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 0 50 800 50 0 0 0 70 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 1\n"
    )
    before = processors.times(stat)
    stat.write_text(
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 120 0 60 850 50 5 15 0 90 0\ncpu1 0 0 0 0 0 0 40 0 0 0\nintr 1\n"
    )
    assert processors.busy(before, processors.times(stat)) == (0.5, 1.0)
    assert processors.busy(before, before) == (0, 0)
