"""swanmesh.yaml: what is read from it, and that every mistake is told at once."""

from __future__ import annotations

import dataclasses
import grp
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from swanmesh.config.sections import Config, CredentialsSection
from swanmesh.config.settings import automatic_in_flight, load_config
from swanmesh.core.model import ConnectionSettings, InitiationSettings, InvalidInput
from swanmesh.core.settings.exemptions import Exemption
from swanmesh.core.settings.policy import Policy
from tests.unit.core.build import credentials

SHIPPED = Path(__file__).parents[3] / "conf" / "swanmesh.yaml"
MINIMAL = """
host: {name: Web1.Mesh.Example, addresses: [203.0.113.1, "2001:db8::1"]}
credentials: {certificate: pki/web1.pem, private_key: /keys/web1.key, authorities: [pki/ca.pem]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "swanmesh.yaml"


def _problems(file: Path, text: str) -> dict[str, str]:
    file.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load_config(file)
    for problem in caught.value.problems:
        assert problem.file == str(file)
        assert problem.remedy
    return {problem.key: str(problem) for problem in caught.value.problems}


def test_the_least_that_will_do_gets_all_defaults(file: Path) -> None:
    file.write_text(MINIMAL)
    config = load_config(file)
    folder = file.parent
    assert config.host.name == "web1.mesh.example"
    assert config.host.addresses == (ip_address("203.0.113.1"), ip_address("2001:db8::1"))
    assert config.policy is Policy.REQUIRE
    assert config.credentials == CredentialsSection(
        certificate=folder / "pki/web1.pem",
        private_key=Path("/keys/web1.key"),
        authorities=(folder / "pki/ca.pem",),
    )
    assert (config.peers, config.hooks) == (folder / "peers.d", folder / "hooks.d")
    assert config.state == Path("/var/lib/swanmesh")
    assert config.charon.socket == Path("/run/charon.vici")
    assert config.control.socket == Path("/run/swanmesh/control.sock")
    assert (config.control.group, config.log.level, config.log.format) == (None, "info", "auto")
    assert config.connection.settings == ConnectionSettings()
    assert config.initiation == InitiationSettings(in_flight=automatic_in_flight())


def test_a_relative_configuration_makes_absolute_paths(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(MINIMAL)
    monkeypatch.chdir(file.parent)
    assert load_config(Path(file.name)).peers == file.parent / "peers.d"


def test_every_key_reaches_its_place(file: Path) -> None:
    group = grp.getgrgid(0).gr_name
    file.write_text(
        MINIMAL
        + f"""
policy: prefer
exempt: [tcp/22, icmp]
peers: other.d
hooks: /hooks
charon: {{socket: a.vici, timeout: 500ms}}
control: {{socket: b.sock, group: {group}}}
log: {{level: debug, format: json}}
connection:
  ike_proposals: [aes128gcm16-prfsha256-x25519]
  esp_proposals: [aes128gcm16-x25519]
  dpd_delay: 10s
  ike_rekey: 2h
  ike_reauth: 7d
  child_rekey: 30m
  replay_window: 64
  encap: true
initiation:
  in_flight: 7
  takeover: 1m
  backoff_base: 2
  backoff_ceiling: 1.5m
  stable: 30
  start_jitter: 0
  attempt_look: 13.5
  duplicate_settle: 20s
  resync: 5m
"""
    )
    config, folder = load_config(file), file.parent
    assert config.policy is Policy.PREFER
    assert config.exempt == (Exemption("tcp", 22), Exemption("icmp"))
    assert (config.peers, config.hooks) == (folder / "other.d", Path("/hooks"))
    assert (config.charon.socket, config.charon.timeout) == (folder / "a.vici", 0.5)
    assert (config.control.socket, config.control.group) == (folder / "b.sock", group)
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert config.connection.settings == ConnectionSettings(
        ike_proposals=("aes128gcm16-prfsha256-x25519",),
        esp_proposals=("aes128gcm16-x25519",),
        dpd_delay=10,
        ike_rekey=7200,
        ike_reauth=7 * 86400,
        child_rekey=1800,
        replay_window=64,
        encap=True,
    )
    assert config.initiation == InitiationSettings(
        in_flight=7,
        takeover=60,
        backoff_base=2,
        backoff_ceiling=90,
        stable=30,
        start_jitter=0,
        attempt_look=13.5,
        duplicate_settle=20,
        resync=300,
    )
    assert type(config.connection.dpd_delay) is int


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("colour: red", "colour", "is no key that swanmesh knows"),
        ("polcy: off", "polcy", "did you mean `policy`?"),
        ("policy: always", "policy", "is no policy"),
        ("exempt: [tcp/22, tcp]", "exempt[1]", "neither a service nor icmp"),
        ("exempt: tcp/22", "exempt", "must be a list"),
        ("exempt: [tcp/65536]", "exempt[0]", "neither a service nor icmp"),
        ("policy: [require]", "policy", "is no policy"),
        ("peers: 5", "peers", "must be a path"),
        ('peers: ""', "peers", "must be a path"),
        ("charon: /run/charon.vici", "charon", "must be a mapping"),
        ("charon: {timeout: 0}", "charon.timeout", "out of bounds"),
        ("charon: {timeout: soon}", "charon.timeout", "must be seconds"),
        ("charon: {timeout: true}", "charon.timeout", "must be seconds"),
        ("charon: {socket: [a]}", "charon.socket", "must be a path"),
        (f"control: {{socket: /{'a' * 107}}}", "control.socket", "is longer than the 107 bytes"),
        ("control: {group: no-such-group}", "control.group", "groupadd --system no-such-group"),
        ("control: {group: 7}", "control.group", "must be the name of a group"),
        ("log: {level: loud}", "log.level", "write debug, info, warning or error"),
        ("connection: {dpd_delay: 0}", "connection.dpd_delay", "give 1 to 3600 seconds"),
        ("connection: {dpd_delay: 2.5}", "connection.dpd_delay", "must be whole seconds"),
        ("connection: {encap: maybe}", "connection.encap", "write true or false"),
        ("connection: {encap: true, encapsulation: always}", "connection.encap", "take it out"),
        ("connection: {encapsulation: udp}", "connection.encapsulation", "write auto, always or never"),
        ("connection: {replay_window: 8192}", "connection.replay_window", "from 32 to 4096"),
        ("connection: {esp_proposals: []}", "connection.esp_proposals", "must be a list of proposals"),
        ("connection: {esp_proposals: [aes128, AES]}", "connection.esp_proposals[1]", "(AES)"),
        (
            "connection: {ike_proposals: [aes128gcm16-prfsha256-x25519, aes128gcm16-x25519]}",
            "connection.ike_proposals[1]",
            "names no pseudo-random function",
        ),
        (
            "connection: {esp_proposals: [aes128gmc16-x25519]}",
            "connection.esp_proposals[0]",
            "aes128gmc16 is no",
        ),
        ("connection: {ike_proposals: 'a\nb'}", "connection.ike_proposals", "must be a list of proposals"),
        ("initiation: {in_flight: 0}", "initiation.in_flight", "from 1 to 10000"),
        ("initiation: {in_flight: many}", "initiation.in_flight", "or auto"),
        ("initiation: {backoff_base: 90}", "initiation.backoff_ceiling", "is less than backoff_base"),
        ("initiation: {resync: -1}", "initiation.resync", "out of bounds"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_value(file: Path, text: str, key: str, message: str) -> None:
    problems = _problems(file, f"{MINIMAL}{text}\n")
    assert list(problems) == [key]
    assert message in problems[key]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("name: ../../etc/passwd, addresses: [203.0.113.1]", "host.name", "is no host name"),
        ("name: 12, addresses: [203.0.113.1]", "host.name", "must be a host name in quotes"),
        ("name: a, addresses: 203.0.113.1", "host.addresses", "must be a list"),
        ("name: a, addresses: []", "host.addresses", "must be a list"),
        ("name: a, addresses: [203.0.113.1, 127.0.0.1]", "host.addresses[1]", "loopback"),
        ("name: a", "host.addresses", "is missing"),
        ("addresses: [203.0.113.1]", "host.name", "is missing"),
    ],
)
def test_a_mistake_about_the_host_itself(file: Path, text: str, key: str, message: str) -> None:
    problems = _problems(file, re.sub(r"host: \{.*?\}", f"host: {{{text}}}", MINIMAL))
    assert list(problems) == [key]
    assert message in problems[key]


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    problems = _problems(
        file,
        """
host: {name: "-", addresses: [x, 203.0.113.1, 0.0.0.0]}
credentials: {certificate: 1, authorities: [a, 2], secret: 3}
policy: strict
connection: {encap: 1, dpd_delay: x}
log: {level: loud, format: pretty}
extra: {a: 1}
""",
    )
    assert set(problems) == {
        "host.name",
        "host.addresses[0]",
        "host.addresses[2]",
        "credentials.certificate",
        "credentials.private_key",
        "credentials.authorities[1]",
        "credentials.secret",
        "policy",
        "connection.encap",
        "connection.dpd_delay",
        "log.level",
        "log.format",
        "extra",
    }


@pytest.mark.parametrize("text", ["", "just words", "[1, 2]", "# nothing\n"])
def test_what_is_no_mapping_is_no_configuration(file: Path, text: str) -> None:
    (message,) = _problems(file, text).values()
    assert "must be a mapping of sections" in message


def test_nothing_of_a_key_given_by_mistake_is_shown(file: Path) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqG\n-----END PRIVATE KEY-----\n"
    assert "MIGH" not in "".join(_problems(file, key).values())


def test_a_section_left_empty_is_as_one_left_out(file: Path) -> None:
    file.write_text(MINIMAL + "charon:\nconnection:\n")
    assert load_config(file).connection.settings == ConnectionSettings()


def test_the_shipped_file_is_valid_and_its_comments_state_the_defaults(file: Path) -> None:
    text = SHIPPED.read_text()
    uncommented = re.sub(r"(?m)^# ((?:  )?[a-z_]+:)", r"\1", text)
    assert uncommented.count("\n  dpd_delay: 5s\n") == 1
    file.write_text(text)
    as_shipped = load_config(file)
    file.write_text(uncommented)
    assert load_config(file) == as_shipped


def keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every key that the file may have, as the settings define them."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from keys(hint, f"{prefix}{name}.")
        elif hasattr(hint, "__metadata__"):
            yield prefix + name


def test_the_shipped_file_shows_every_key() -> None:
    shown, section = set(), ""
    for indent, name in re.findall(r"^(?:# ?)?( *)([a-z_]+):", SHIPPED.read_text(), re.MULTILINE):
        section = section if indent else f"{name}."
        shown.add(section + name if indent else name)
    assert set(keys(Config)) <= shown


@pytest.mark.parametrize("key", [*keys(Config)])
def test_every_setting_refuses_what_cannot_be(file: Path, key: str) -> None:
    document = yaml.safe_load(MINIMAL)
    section, _, name = key.rpartition(".")
    (document.setdefault(section, {}) if section else document)[name] = {"no": ["such"]}
    (found,) = _problems(file, yaml.safe_dump(document))
    assert found == key


@pytest.mark.parametrize(
    ("said", "always", "automatic"),
    [
        ("{}", False, False),
        ("{encapsulation: never}", False, False),
        ("{encapsulation: always}", True, False),
        ("{encapsulation: auto}", False, True),
        ("{encap: true}", True, False),
        ("{encap: false}", False, False),
    ],
)
def test_encapsulation_in_its_words_and_in_older_ones(
    file: Path, said: str, always: bool, automatic: bool
) -> None:
    file.write_text(MINIMAL + f"connection: {said}\n")
    made = load_config(file).settings(credentials())
    assert (made.connection.encap, made.automatic_encapsulation) == (always, automatic)
