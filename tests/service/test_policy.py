"""`swanmesh policy` between real files, the real service and a charon of ours."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.charon.daemon import Initiation
from tests.charon.helpers import asynchronous
from tests.service.commanding import swanmesh
from tests.service.running import Place, all_up, peer, service, status, until

PEERS = ["web2.mesh.example", "web3.mesh.example", "web4.mesh.example"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Three peers and the policy `prefer`, in a file as a person wrote it."""
    place = Place(tmp_path)
    for number in (2, 3, 4):
        place.write_peer(f"web{number}.mesh.example", f"192.0.2.{number}")
    place.document["policy"] = "prefer"
    place.write_config()
    text = place.config.read_text().replace("policy: prefer", "policy: prefer  # until all are in")
    place.config.write_text(f"# this host\n{text}")
    return place


def traps(place: Place) -> set[str]:
    """Names of the peers for whom charon has a trap."""
    return {
        name.removeprefix("swanmesh-").rpartition("-")[0]
        for name, body in place.charon.connections.items()
        if any(child["start_action"] == b"trap" for child in body["children"].values())
    }


async def policies(place: Place) -> dict[str, str]:
    return {peer.name: peer.policy for peer in (await status(place)).peers}


@asynchronous
async def test_require_is_set_where_nothing_stands_in_its_way(place: Place) -> None:
    await place.charon.start()
    before = place.config.read_text()
    async with service(place) as daemon:
        await all_up(place, daemon)
        sas = set(place.charon.sas)
        assert "0 of 3 peers would be cut off" in (await swanmesh(place, "policy", "report")).out
        dry = await swanmesh(place, "policy", "set", "require", "--dry-run", "--json")
        assert (dry.status, dry.json["would_change"], dry.json["risks"]) == (0, PEERS, {})
        assert place.config.read_text() == before
        ended = await swanmesh(place, "policy", "set", "require")
        assert (ended.status, ended.err) == (0, "")
        assert ended.out.startswith("require is in force for 3 peers; written to ")
        assert traps(place) == set(PEERS)
        assert set(place.charon.sas) == sas
        again = await swanmesh(place, "policy", "set", "require")
        assert (again.status, again.out) == (0, "the files say require for this host already\n")
    assert place.config.read_text() == before.replace("prefer", "require")
    await place.charon.stop()


@asynchronous
async def test_require_is_refused_with_the_names_of_those_it_would_cut_off(place: Place) -> None:
    await place.charon.start()
    place.charon.on_initiate = Initiation.HOLD
    before = place.config.read_text()
    async with service(place) as daemon:
        await until(daemon, lambda: len(place.charon.sas) == 3)
        refused = await swanmesh(place, "policy", "set", "require")
        assert refused.status == 1
        lines = refused.err.splitlines()
        assert [line.split(": ")[1] for line in lines[:3]] == PEERS
        assert lines[3].endswith("if that is meant, add --accept-risk=cut-peers")
        assert (await swanmesh(place, "policy", "set", "require", "--dry-run")).status == 1
        assert place.config.read_text() == before and traps(place) == set()
        place.charon.establish_held()
        await until(daemon, lambda: len(daemon.mesh.state.up) == 3)
        place.charon.on_initiate = Initiation.HOLD
        place.charon.drop(next(iter(place.charon.sas)))
        await until(daemon, lambda: len(daemon.mesh.state.up) == 2)
        (down,) = set(PEERS) - daemon.mesh.state.up
        assert f"{down}: " in (await swanmesh(place, "policy", "set", "require")).err
        up, _ = sorted(daemon.mesh.state.up)
        assert (await swanmesh(place, "policy", "set", "require", up)).status == 0
        assert traps(place) == {up}
        accepted = await swanmesh(place, "policy", "set", "require", "--accept-risk=cut-peers")
        assert accepted.status == 0 and down in accepted.err
        assert traps(place) == set(PEERS)
    await place.charon.stop()


@asynchronous
async def test_require_is_refused_to_a_peer_from_which_somebody_is_logged_in(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        refused = await swanmesh(place, "policy", "set", "require", ssh="192.0.2.3")
        assert refused.status == 1
        assert refused.err.startswith(
            "swanmesh: web3.mesh.example: somebody is logged in over SSH from 192.0.2.3"
        )
        assert "--accept-risk=lose-ssh" in refused.err and "cut-peers" not in refused.err
        assert (
            await swanmesh(place, "policy", "set", "require", "web2", "web4", ssh="192.0.2.3")
        ).status == 0
        assert traps(place) == {PEERS[0], PEERS[2]}
        accepted = ("policy", "set", "require", "--accept-risk=lose-ssh")
        assert (await swanmesh(place, *accepted, ssh="192.0.2.3")).status == 0
        assert traps(place) == set(PEERS)
    await place.charon.stop()


@asynchronous
async def test_an_ssh_session_that_is_exempt_is_no_risk(place: Place) -> None:
    place.document["exempt"] = ["tcp/22"]
    place.write_config()
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        assert (await swanmesh(place, "policy", "set", "require", ssh="192.0.2.3")).status == 0
    await place.charon.stop()


@asynchronous
async def test_a_peer_named_gets_a_policy_of_its_own_and_keeps_it(place: Place) -> None:
    file = place.peers / "web3.mesh.example.yaml"
    file.write_text("name: web3.mesh.example\n# one address\naddresses: [192.0.2.3]\n")
    file.chmod(0o600)
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        assert (await swanmesh(place, "policy", "set", "require", "web3")).status == 0
        assert (
            file.read_text()
            == "name: web3.mesh.example\n# one address\naddresses: [192.0.2.3]\npolicy: require\n"
        )
        assert file.stat().st_mode & 0o777 == 0o600
        assert traps(place) == {"web3.mesh.example"}
        ended = await swanmesh(place, "policy", "set", "off")
        assert ended.status == 0
        assert "web3.mesh.example: goes on with the policy of its own, require" in ended.err
        assert "refuse this host" in ended.err
        assert await policies(place) == dict(zip(PEERS, ("off", "require", "off"), strict=True))
        unknown = await swanmesh(place, "policy", "set", "require", "web33")
        assert unknown.status == 2 and "did you mean web3.mesh.example" in unknown.err
    await place.charon.stop()


@asynchronous
async def test_a_policy_on_trial_goes_back_by_itself_and_no_file_was_touched(place: Place) -> None:
    await place.charon.start()
    before = place.config.read_text()
    async with service(place) as daemon:
        await all_up(place, daemon)
        ended = await swanmesh(place, "policy", "set", "require", "--confirm-within", "2s")
        assert "unless `swanmesh policy confirm` follows" in ended.out
        await until(daemon, lambda: traps(place) == set())
        assert await policies(place) == dict.fromkeys(PEERS, "prefer")
        late = await swanmesh(place, "policy", "confirm")
        assert late.status == 1 and "no policy is on trial" in late.err
        assert place.config.read_text() == before
    await place.charon.stop()


@asynchronous
async def test_a_policy_on_trial_stays_once_it_is_confirmed(place: Place) -> None:
    await place.charon.start()
    before = place.config.read_text()
    async with service(place) as daemon:
        await all_up(place, daemon)
        await swanmesh(place, "policy", "set", "require", "--confirm-within", "10m")
        loads = place.loads()
        assert traps(place) == set(PEERS)
        assert place.config.read_text() == before
        other = await swanmesh(place, "policy", "set", "off")
        assert other.status == 1 and "require is on trial for this host" in other.err
        assert "ON TRIAL: require" in (await swanmesh(place, "status")).out
        assert (await swanmesh(place, "policy", "confirm")).status == 0
        assert place.config.read_text() == before.replace("prefer", "require")
        assert (await swanmesh(place, "policy", "report", "--json")).json["trial"] is None
        await swanmesh(place, "policy", "set", "off", "web2", "web3", "--confirm-within", "10m")
        assert await policies(place) == dict(zip(PEERS, ("off", "off", "require"), strict=True))
        assert (await swanmesh(place, "policy", "confirm")).status == 0
        assert "policy: off" in (place.peers / "web2.mesh.example.yaml").read_text()
        assert place.loads() == loads
    async with service(place) as daemon:
        assert await policies(place) == dict(zip(PEERS, ("off", "off", "require"), strict=True))
    await place.charon.stop()


@asynchronous
async def test_a_policy_on_trial_is_cancelled(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        assert (await swanmesh(place, "policy", "cancel")).status == 1
        await swanmesh(place, "policy", "set", "require", "--confirm-within", "10m")
        assert (await swanmesh(place, "policy", "cancel")).status == 0
        assert traps(place) == set()
    await place.charon.stop()


def shift(place: Place, **changes: float) -> None:
    """Has the trial on record begun so much earlier, by either clock: as if time had passed or the host had
    booted."""
    path = place.folder / "state/trial.json"
    record = json.loads(path.read_text())
    path.write_text(
        json.dumps(
            {key: value - changes.get(key, 0.0) if key in changes else value for key, value in record.items()}
        )
    )


@asynchronous
async def test_a_trial_whose_service_was_killed_goes_on_and_ends_in_time(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        await swanmesh(place, "policy", "set", "require", "--confirm-within", "10m")
    async with service(place) as daemon:
        await all_up(place, daemon)
        assert traps(place) == set(PEERS)
        assert await policies(place) == dict.fromkeys(PEERS, "require")
    shift(place, began=599.0, began_slept=599.0)
    async with service(place) as daemon:
        await until(daemon, lambda: traps(place) == set())
    await place.charon.stop()


@pytest.mark.parametrize(
    ("began", "slept", "stands"),
    [
        (100.0, -1e6, True),
        (700.0, -1e6, False),
        (700.0, 100.0, False),
        (-1e9, -1e6, False),
        (-1e9, 100.0, True),
    ],
    ids=["booted in time", "booted late", "wall clock set ahead", "booted without a clock", "clock set back"],
)
@asynchronous
async def test_a_trial_survives_a_boot_but_not_its_time(
    place: Place, began: float, slept: float, stands: bool
) -> None:
    """`began` and `slept`: how far either clock went since the trial of 600 s began."""
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        await swanmesh(place, "policy", "set", "require", "--confirm-within", "10m")
    shift(place, began=began, began_slept=slept)
    place.charon.forget_everything()
    async with service(place) as daemon:
        await all_up(place, daemon)
        assert await policies(place) == dict.fromkeys(PEERS, "require" if stands else "prefer")
        assert traps(place) == (set(PEERS) if stands else set())
        assert (place.folder / "state/trial.json").exists() == stands
    await place.charon.stop()


@asynchronous
async def test_what_is_written_by_hand_meanwhile_holds_and_is_not_overwritten(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        await swanmesh(place, "policy", "set", "require", "--confirm-within", "10m")
        place.config.write_text(place.config.read_text().replace("policy: prefer", "policy: off"))
        await until(daemon, lambda: place.charon.connections == {})
        assert (await swanmesh(place, "policy", "confirm")).status == 1
        assert "policy: off" in place.config.read_text()
        await swanmesh(place, "policy", "set", "prefer", "web2", "web3", "--confirm-within", "10m")
        (place.peers / "web3.mesh.example.yaml").write_text(
            "name: web3.mesh.example\naddresses: [192.0.2.3]\npolicy: require\n"
        )
        await until(daemon, lambda: traps(place) == {"web3.mesh.example"})
        refused = await swanmesh(place, "policy", "confirm")
        assert refused.status == 1
        assert "web3.mesh.example: its policy is no longer as it was when the trial began" in refused.err
        assert "policy" not in (place.peers / "web2.mesh.example.yaml").read_text()
        assert (await swanmesh(place, "policy", "cancel")).status == 0
    await place.charon.stop()


@asynchronous
async def test_of_two_trials_at_once_one_is_refused(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        ended = await asyncio.gather(
            *(
                swanmesh(place, "policy", "set", word, "--confirm-within", "10m")
                for word in ("require", "off")
            )
        )
        done, refused = sorted(ended, key=lambda each: each.status)
        assert done.status == 0 and refused.status in (1, 2)
        assert "on trial" in refused.err
        wanted = "require" if done is ended[0] else "off"
        assert await policies(place) == dict.fromkeys(PEERS, wanted)
    await place.charon.stop()


@asynchronous
async def test_without_a_service_nothing_is_written(place: Place) -> None:
    before = place.config.read_text()
    assert (await swanmesh(place, "policy", "set", "require")).status == 3
    assert (await swanmesh(place, "policy", "set", "require", "--confirm-within", "5m")).status == 3
    assert place.config.read_text() == before
    assert list(place.folder.glob("state/*")) == []


@asynchronous
async def test_report_says_what_stands_in_the_way(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        assert peer(await status(place), PEERS[0]).state == "up"
        place.charon.on_initiate = Initiation.HOLD
        unique_id = next(i for i, sa in place.charon.sas.items() if PEERS[1] in sa.connection)
        place.charon.drop(unique_id)
        await until(daemon, lambda: len(daemon.mesh.state.up) == 2)
        found = (await swanmesh(place, "policy", "report", "--json")).json
        obstacles = {each["name"]: each["obstacle"] for each in found["peers"]}
        assert [name for name, words in obstacles.items() if words] == [PEERS[1]]
        first = (await swanmesh(place, "policy", "report")).out.splitlines()[3]
        name, policy, state = first.split()[:3]
        assert (name, policy) == (PEERS[1], "prefer") and state in ("connecting", "down")
    await place.charon.stop()
