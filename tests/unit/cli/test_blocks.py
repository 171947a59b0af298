"""`add-block` and `remove-block`, and what `check`, `plan --offline` and `status` say of blocks."""

from __future__ import annotations

import pytest

from swanmesh.control.protocol import ReloadReply
from swanmesh.control.reports import BlockStatus, StrangerStatus
from tests.unit.cli.conftest import Machine
from tests.unit.cli.test_files_commands import make_credentials
from tests.unit.control.plain_service import ServerThread


def test_a_block_is_written_told_and_removed(machine: Machine, server: ServerThread) -> None:
    path = machine.folder / "blocks.d" / "servers.yaml"
    arguments = ("203.0.113.0/24", "--name", "servers", "--policy", "prefer", "--except", "203.0.113.1")
    ended = machine.swanmesh("add-block", *arguments)
    assert (ended.status, ended.out) == (0, "servers: 203.0.113.0/24 added\n")
    assert path.read_text() == "cidr: 203.0.113.0/24\npolicy: prefer\nexcept: [203.0.113.1]\n"
    assert [request.files for request in server.service.reloads] == [[str(path)]]
    assert machine.swanmesh("add-block", *arguments, "--json").json["block"]["result"] == "unchanged"
    assert len(server.service.reloads) == 1
    assert machine.swanmesh("remove-block", "servers").out == "servers: removed\n"
    assert server.service.reloads[-1].removed and not path.exists()


def test_without_a_name_a_block_is_called_by_its_network(machine: Machine) -> None:
    ended = machine.swanmesh("add-block", "2001:db8::/64")
    assert ended.status == 0 and "reads it as soon as it runs" in ended.out
    assert [path.name for path in (machine.folder / "blocks.d").iterdir()] == ["block-2001-db8-64.yaml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("203.0.113.7/24",), "the network is 203.0.113.0/24"),
        (("0.0.0.0/0",), "wide: true"),
        (("203.0.113.0/24", "--except", "198.51.100.1"), "is not in 203.0.113.0/24"),
        (("203.0.113.0/24", "--name", "a/b"), "the block's name"),
    ],
)
def test_a_wrong_block_is_2_and_nothing_is_written(
    machine: Machine, arguments: tuple[str, ...], words: str
) -> None:
    ended = machine.swanmesh("add-block", *arguments)
    assert ended.status == 2 and words in ended.err
    assert not (machine.folder / "blocks.d").exists()
    assert machine.swanmesh("remove-block", "nobody").status != 0


def test_what_the_service_refuses_is_taken_back(machine: Machine, server: ServerThread) -> None:
    path = machine.folder / "blocks.d" / "web2.yaml"
    server.service.reload_reply = ReloadReply(changed=[], problems=[f"{path}: name: stands in another file"])
    ended = machine.swanmesh("add-block", "203.0.113.0/24", "--name", "web2")
    assert ended.status == 2 and "nothing was changed" in ended.err and not path.exists()


def test_check_and_the_offline_plan_know_blocks(machine: Machine) -> None:
    make_credentials(machine)
    machine.peers.mkdir()
    machine.swanmesh("add-block", "203.0.113.0/24", "--name", "four")
    assert machine.swanmesh("check").status == 0
    plan = [
        (each["action"], each["peer"], each["reason"])
        for each in machine.swanmesh("plan", "--offline", "--json").json["actions"]
    ]
    assert ("load", "four", "new block") in plan
    (machine.folder / "blocks.d" / "five.yaml").write_text("cidr: 203.0.113.0/24\n")
    (machine.folder / "blocks.d" / "six.yaml").write_text("cidr: mesh.example\n")
    ended = machine.swanmesh("check")
    assert ended.status == 2 and "the block stands in" in ended.err and "six.yaml: cidr" in ended.err


def test_status_tells_of_blocks_and_strangers(machine: Machine, server: ServerThread) -> None:
    stranger = StrangerStatus(address="203.0.113.9", reason="no answer", times=3, again=0.0)
    server.service.blocks = [
        BlockStatus(
            name="four",
            cidr="203.0.113.0/24",
            policy="require",
            exceptions=["203.0.113.1/32"],
            members=5,
            up=4,
            asked=1,
            strangers=7,
            listed=[stranger],
        )
    ]
    line = "block four: 203.0.113.0/24, policy require: 4 of 5 members up, 1 being asked, 7 strangers"
    assert line in machine.swanmesh("status").out
    told = machine.swanmesh("status", "four").out
    assert line in told and "203.0.113.9" in told and "asked 3 times: no answer" in told
