"""Names, addresses and the registry of peers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swanmesh.core.model import Host, InvalidInput, Peer
from swanmesh.core.peers.description import check_address, check_name, parse_peer
from swanmesh.core.peers.registry import PeerRegistry
from swanmesh.core.settings.policy import Policy, check_policy
from tests.unit.core.build import address, peer

HOST = Host(name="web1.mesh.example", addresses=(address("203.0.113.1"), address("2001:db8::1")))


@pytest.mark.parametrize(
    "name", ["web12.mesh.example", "a", "x-1.example", "1a.b2", "A.Mesh.Example", "a" * 63]
)
def test_host_names(name: str) -> None:
    assert check_name(name) == name.lower()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..b",
        "a.",
        ".a",
        "-a",
        "a-",
        "a_b",
        "a b",
        "../../etc/x",
        "a/b",
        "a\nb",
        "a\0b",
        "a" * 64,
        "a." * 126 + "ab",
        "192.0.2.1",
        "web.12",
        "K.example",  # KELVIN SIGN: its lower case is an ASCII k
        "wéb.example",
        "web*",
        "%any",
        12,
        None,
        True,
        ["web"],
    ],
)
def test_names_refused(name: object) -> None:
    if name == "K.example":
        assert check_name(name) == "k.example"  # lower() makes it ASCII before it is looked at
        return
    with pytest.raises(ValueError, match=r"\w"):
        check_name(name)


@given(st.text(max_size=300))
def test_a_name_that_passes_is_safe_everywhere(text: str) -> None:
    try:
        name = check_name(text)
    except ValueError:
        return
    assert name.isascii() and len(name) <= 253
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert ".." not in name and not name.startswith((".", "-")) and not name.endswith((".", "-"))
    assert check_name(name) == name


@pytest.mark.parametrize("value", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1"])
def test_addresses(value: str) -> None:
    assert str(check_address(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        "0.0.0.0",  # noqa: S104
        "::",
        "127.0.0.1",
        "::1",
        "224.0.0.1",
        "ff02::1",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%eth0",
        "255.255.255.255",
        "::ffff:192.0.2.1",
        "192.0.2.0/24",
        "192.0.2.01",
        "192.0.2",
        "web2.mesh.example",
        "%any",
        "",
        3221225985,
        None,
    ],
)
def test_addresses_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check_address(value)


def test_policies() -> None:
    assert check_policy("prefer") is Policy.PREFER
    assert check_policy(False) is Policy.OFF  # YAML 1.1 reads `off` so
    for wrong in ("always", "REQUIRE", "", 1, None, True):
        with pytest.raises(ValueError, match=r"\w"):
            check_policy(wrong)


def test_parse_names_every_problem_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_peer("a_b", ["192.0.2.1", "nowhere", "192.0.2.1"], "maybe", source="x.yaml")
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["name", "addresses[1]", "addresses[2]", "policy"]
    for problem in caught.value.problems:
        assert problem.file == "x.yaml" and problem.value and problem.message and problem.remedy


@pytest.mark.parametrize("addresses", [[], None, "192.0.2.1", {"192.0.2.1": 1}])
def test_addresses_must_be_a_list_with_something_in_it(addresses: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_peer("web2.mesh.example", addresses, source="x.yaml")
    assert [problem.key for problem in caught.value.problems] == ["addresses"]


def names(registry: PeerRegistry) -> dict[str, str]:
    """Peer in force by file."""
    return {source: held.name for source, held in registry.peers.items()}


def test_update_tells_which_peers_changed() -> None:
    registry = PeerRegistry(HOST)
    assert registry.update([peer("a"), peer("b", "203.0.113.3")]) == {"a", "b"}
    assert registry.update([peer("a"), peer("b", "203.0.113.4")]) == {"b"}
    assert registry.update(drop=["a.yaml"]) == {"a"}
    assert registry.update(drop=["a.yaml", "never-there.yaml"]) == frozenset()
    assert names(registry) == {"b.yaml": "b"}
    assert registry.named("a") is None and registry.named("b") is not None


def test_own_name_is_skipped() -> None:
    registry = PeerRegistry(HOST)
    assert registry.update([peer(HOST.name, "203.0.113.1")]) == frozenset()
    assert names(registry) == {} and not registry.problems


def test_a_file_that_becomes_our_own_name_leaves() -> None:
    registry = PeerRegistry(HOST)
    registry.update([peer("b", source="x.yaml")])
    assert registry.update([peer(HOST.name, "203.0.113.1", source="x.yaml")]) == {"b"}
    assert names(registry) == {} and not registry.problems


def test_an_own_entry_with_addresses_that_are_not_ours_is_a_problem() -> None:
    registry = PeerRegistry(HOST)
    registry.update([peer(HOST.name, "203.0.113.1", "203.0.113.11", source="own.yaml")])
    (problem,) = registry.problems
    assert (problem.file, problem.key, problem.value) == ("own.yaml", "addresses[1]", "203.0.113.11")
    assert "this host's own name" in problem.message and problem.remedy
    registry.update([peer(HOST.name, "203.0.113.1", source="own.yaml")])
    assert not registry.problems


def test_two_files_with_one_name_name_each_other() -> None:
    registry = PeerRegistry(HOST)
    registry.update([peer("a", "203.0.113.2", source="1.yaml")])
    assert registry.update([peer("a", "203.0.113.3", source="2.yaml")]) == frozenset()
    (problem,) = registry.problems
    assert (problem.file, problem.key, problem.value) == ("2.yaml", "name", "a")
    assert "1.yaml" in problem.message and problem.remedy
    assert names(registry) == {"1.yaml": "a"}
    # The first one goes: the second comes into force.
    assert registry.update(drop=["1.yaml"]) == {"a"}
    assert names(registry) == {"2.yaml": "a"} and not registry.problems


def test_two_files_with_one_address_name_each_other() -> None:
    registry = PeerRegistry(HOST)
    registry.update([peer("a", "203.0.113.2")])
    registry.update([peer("b", "203.0.113.3", "203.0.113.2")])
    (problem,) = registry.problems
    assert (problem.file, problem.key) == ("b.yaml", "addresses[1]")
    assert "a.yaml" in problem.message


def test_the_hosts_own_address_is_refused() -> None:
    registry = PeerRegistry(HOST)
    registry.update([peer("a", "2001:db8::1")])
    (problem,) = registry.problems
    assert "own address" in problem.message and names(registry) == {}


def test_the_last_good_version_stays() -> None:
    registry = PeerRegistry(HOST)
    registry.update([peer("a", "203.0.113.2"), peer("b", "203.0.113.3")])
    assert registry.update([peer("b", "203.0.113.2")]) == frozenset()
    held = registry.named("b")
    assert held is not None and [str(a) for a in held.addresses] == ["203.0.113.3"]
    assert [problem.file for problem in registry.problems] == ["b.yaml"]
    # What b keeps by that is taken for a third.
    registry.update([peer("c", "203.0.113.3")])
    assert sorted(problem.file for problem in registry.problems) == ["b.yaml", "c.yaml"]
    # Put right again: both are heard.
    assert registry.update([peer("a", "203.0.113.9")]) == {"a", "b", "c"}
    assert not registry.problems


def test_addresses_exchanged_between_two_files_in_one_update() -> None:
    registry = PeerRegistry(HOST)
    registry.update([peer("a", "203.0.113.2"), peer("b", "203.0.113.3")])
    assert registry.update([peer("a", "203.0.113.3"), peer("b", "203.0.113.2")]) == {"a", "b"}
    assert not registry.problems
    assert [str(registry.peers[f"{n}.yaml"].addresses[0]) for n in "ab"] == ["203.0.113.3", "203.0.113.2"]


def test_addresses_exchanged_one_file_after_the_other() -> None:
    registry = PeerRegistry(HOST)
    registry.update([peer("a", "203.0.113.2"), peer("b", "203.0.113.3")])
    registry.update([peer("a", "203.0.113.3")])
    assert len(registry.problems) == 1
    assert registry.update([peer("b", "203.0.113.2")]) == {"a", "b"}
    assert not registry.problems


def test_a_chain_of_fallbacks_ends() -> None:
    registry = PeerRegistry(HOST)
    count = 20
    registry.update([peer(f"p{n}", f"192.0.2.{n + 1}") for n in range(count)])
    # Each moves to its neighbour's address; the last one's wish is taken by one that stays: all fall back.
    moved = [peer(f"p{n}", f"192.0.2.{n + 2}") for n in range(count - 1)]
    assert registry.update(moved) == frozenset()
    assert len(registry.problems) == count - 1
    assert registry.update([peer(f"p{count - 1}", "192.0.2.200")]) == {f"p{n}" for n in range(count)}
    assert not registry.problems


files = st.dictionaries(
    st.sampled_from([f"{n}.yaml" for n in range(5)]),
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", HOST.name]),
        st.lists(
            st.sampled_from([f"192.0.2.{n}" for n in range(1, 7)] + ["203.0.113.1"]), min_size=1, max_size=2
        ),
    ),
    max_size=5,
)


def as_peers(contents: dict[str, tuple[str, list[str]]]) -> dict[str, Peer]:
    return {
        source: parse_peer(name, list(dict.fromkeys(addresses)), source=source)
        for source, (name, addresses) in contents.items()
    }


def update_to(registry: PeerRegistry, old: dict[str, Peer], new: dict[str, Peer]) -> None:
    """One update that brings the files from `old` to `new`, reporting changes alone as the watch does."""
    before = {source: held.name for source, held in registry.peers.items()}
    changed = registry.update(
        [p for s, p in new.items() if old.get(s) != p], [s for s in old if s not in new]
    )
    after = {source: held.name for source, held in registry.peers.items()}
    gone_or_new = {
        name for s in before.keys() ^ after.keys() for name in (before.get(s), after.get(s)) if name
    }
    assert gone_or_new <= changed


def without_contradiction(contents: dict[str, Peer]) -> bool:
    others = [p for p in contents.values() if p.name != HOST.name]
    claims = [claim for p in others for claim in (p.name, *p.addresses)]
    return len(claims) == len(set(claims)) and not set(claims) & set(HOST.addresses)


@given(st.lists(files, max_size=6), files)
def test_what_is_in_force_does_not_depend_on_the_path(
    path: list[dict[str, tuple[str, list[str]]]], end: dict[str, tuple[str, list[str]]]
) -> None:
    registry = PeerRegistry(HOST)
    held: dict[str, Peer] = {}
    for contents in [*path, end]:
        new = as_peers(contents)
        update_to(registry, held, new)
        held = new
        claims = [claim for p in registry.peers.values() for claim in (p.name, *p.addresses)]
        assert len(claims) == len(set(claims))  # whatever came: nothing in force contradicts
        assert not set(claims) & {HOST.name, *HOST.addresses}
        refused = {problem.file for problem in registry.problems if "own name" not in problem.message}
        for source, p in held.items():  # and every file is in force, our own, or complained about
            assert source in refused or p.name == HOST.name or registry.peers.get(source) == p
    if without_contradiction(held):
        assert dict(registry.peers) == {s: p for s, p in held.items() if p.name != HOST.name}
        assert all(held[problem.file].name == HOST.name for problem in registry.problems)
