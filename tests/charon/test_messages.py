"""Decoding of what charon says about itself, from both of its generations and from nobody's."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from swanmesh.charon import messages
from swanmesh.charon.causes import Causes
from swanmesh.charon.codec import decode
from swanmesh.charon.messages import Decoder
from swanmesh.core.observed import ChildSa, IkeMoved, IkeSa
from tests.charon import holdings, wire

_IKE = {
    "uniqueid": "5",
    "version": "2",
    "state": "ESTABLISHED",
    "local-host": "2001:db8::1",
    "local-port": "500",
    "local-id": "a.mesh.example",
    "remote-host": "2001:db8::2",
    "remote-port": "4500",
    "remote-id": "b.mesh.example",
    "initiator": "yes",
    "nat-remote": "yes",
    "nat-any": "yes",
    "initiator-spi": "00112233445566ff",
    "responder-spi": "ff112233445566ff",
    "encr-alg": "AES_CBC",
    "encr-keysize": "256",
    "integ-alg": "HMAC_SHA2_256_128",
    "prf-alg": "PRF_HMAC_SHA2_256",
    "dh-group": "CURVE_25519",
    "established": "12",
    "rekey-time": "-3",
    "tasks-active": ["IKE_DPD"],
}
_CHILD = {
    "name": "child",
    "uniqueid": "9",
    "reqid": "2",
    "state": "INSTALLED",
    "mode": "TRANSPORT",
    "protocol": "ESP",
    "encap": "yes",
    "spi-in": "c0000001",
    "spi-out": "c0000002",
    "encr-alg": "AES_GCM_16",
    "encr-keysize": "128",
    "dh-group": "CURVE_25519",
    "esn": "1",
    "bytes-in": "18446744073709551615",
    "packets-in": "3",
    "use-in": "1",
    "bytes-out": "4",
    "packets-out": "5",
    "rekey-time": "3000",
    "life-time": "3600",
    "install-time": "60",
    "local-ts": ["2001:db8::1/128"],
    "remote-ts": ["2001:db8::2/128"],
}


def _as_received(message: dict[str, Any]) -> dict[str, Any]:
    return decode(wire.serialize(message))


def test_every_field_of_an_ike_sa_arrives() -> None:
    (ike,) = Decoder().ike_sas(_as_received({"conn": _IKE | {"child-sas": {"child-9": _CHILD}}}))
    assert ike == IkeSa(
        unique_id=5,
        connection="conn",
        state="ESTABLISHED",
        initiator=True,
        spi_initiator="00112233445566ff",
        spi_responder="ff112233445566ff",
        local_host="2001:db8::1",
        remote_host="2001:db8::2",
        local_id="a.mesh.example",
        remote_id="b.mesh.example",
        nat_remote=True,
        algorithm="AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519",
        children=ike.children,
    )
    assert (ike.tasks_active, ike.tasks_queued) == (("IKE_DPD",), ())
    assert (ike.age, ike.rekey_in, ike.reauth_in) == (12.0, -3.0, None)
    (child,) = ike.children
    assert child == ChildSa(
        unique_id=9,
        name="child",
        state="INSTALLED",
        mode="TRANSPORT",
        encap=True,
        reqid=2,
        spi_in="c0000001",
        spi_out="c0000002",
        algorithm="AES_GCM_16-128/CURVE_25519/ESN",
        local_ts=("2001:db8::1/128",),
        remote_ts=("2001:db8::2/128",),
    )
    assert (child.bytes_in, child.packets_in, child.bytes_out, child.packets_out) == (2**64 - 1, 3, 4, 5)
    assert (child.age, child.rekey_in) == (60.0, 3000.0)


def test_a_move_tells_where_to_and_not_where_from() -> None:
    going = {"local-host": "2001:db8::1", "local-port": "4500", "remote-host": "2001:db8::66"}
    (event,) = Decoder().event("ike-update", _as_received(going | {"remote-port": "4500", "conn": _IKE}))
    assert isinstance(event, IkeMoved)
    (stood,) = Decoder().ike_sas(_as_received({"conn": _IKE}))
    assert event.ike == replace(stood, remote_host="2001:db8::66")


def test_what_6_0_adds_is_read_or_passed_over() -> None:
    newer = _IKE | {"ake1": "ML_KEM_768", "ppk": "yes"}
    (ike,) = Decoder().ike_sas(
        _as_received(
            {"conn": newer | {"child-sas": {"child-9": _CHILD | {"cpu": "3", "per-cpu-sas": "yes"}}}}
        )
    )
    assert ike.algorithm.endswith("CURVE_25519/ML_KEM_768")
    assert ike.children[0].works


def test_what_is_not_there_yet_is_empty() -> None:
    decoder = Decoder()
    (ike,) = decoder.ike_sas(_as_received({"conn": {"uniqueid": "1", "state": "CONNECTING"}}))
    assert (ike.remote_id, ike.algorithm, ike.children, ike.initiator, ike.age) == ("", "", (), False, None)
    assert decoder.skipped == 0


def test_a_broken_child_is_left_out_and_its_ike_sa_stands() -> None:
    decoder = Decoder()
    for broken in (
        {"uniqueid": "x"},
        {"bytes-in": "1_000"},
        {"state": ""},
        {"reqid": "-1"},
        {"uniqueid": ["1"]},
    ):
        children = {"bad": _CHILD | broken, "child-9": _CHILD}
        (ike,) = decoder.ike_sas(_as_received({"conn": _IKE | {"child-sas": children}}))
        assert [child.unique_id for child in ike.children] == [9]
    assert decoder.skipped == 5


def test_texts_that_are_not_utf8_are_replaced() -> None:
    (ike,) = Decoder().ike_sas(_as_received({"conn": _IKE | {"remote-id": b"\xff\xfe"}}))
    assert ike.remote_id == "��"


def test_key_ids_are_written_as_cryptography_writes_them() -> None:
    assert messages.key_ids({"keys": [b"AB:CD", b"00ff"]}) == {"abcd", "00ff"}
    assert messages.key_ids({}) == messages.key_ids({"keys": b"x"}) == frozenset()


def test_since_is_none_when_it_cannot_be_read() -> None:
    now = int(time.time())
    told = time.strftime("%b %d %H:%M:%S %Y", time.localtime(now)).encode()
    assert messages.running_since({"uptime": {"since": told}}) == now
    for broken in ({}, {"uptime": b"x"}, {"uptime": {"since": b"--- -- --:--:-- ----"}}):
        assert messages.running_since(broken) is None


def test_five_thousand_sas_are_decoded_within_a_second() -> None:
    ike = holdings.IkeSa(1, "swanmesh-connection-of-some-length", state="ESTABLISHED")
    ike.children = {2: holdings.ChildSa(2, "a-child-with-a-digest")}
    payload = wire.serialize({ike.connection: ike.section()})
    decoder = Decoder()
    started = time.process_time()
    decoded = [decoder.ike_sas(decode(payload)) for _ in range(5000)]
    assert time.process_time() - started < 1
    assert all(sas[0].works for sas in decoded)


_values = st.recursive(
    st.one_of(st.binary(max_size=12), st.lists(st.binary(max_size=8), max_size=3), st.integers().map(str)),
    lambda inner: st.dictionaries(
        st.sampled_from(
            [
                "uniqueid",
                "state",
                "child-sas",
                "old",
                "new",
                "bytes-in",
                "name",
                "children",
                "ike-sa",
                "type",
                "up",
            ]
        )
        | st.text("abc-1", max_size=5),
        inner,
        max_size=6,
    ),
    max_leaves=25,
)


@given(st.dictionaries(st.text("abc-", min_size=1, max_size=6) | st.sampled_from(["ike-sa", "up"]), _values))
def test_no_section_raises_whatever_it_holds(message: dict[str, Any]) -> None:
    section = _as_received(message)
    decoder = Decoder()
    for name in ("ike-updown", "child-updown", "ike-rekey", "child-rekey", "ike-update", "other"):
        assert isinstance(decoder.event(name, section), tuple)
    decoder.ike_sas(section)
    decoder.connection(section)
    decoder.alert(section)
    messages.version(section)
    messages.running_since(section)
    messages.algorithms(section)
    messages.key_ids(section)
    messages.certificate(section)
    Causes().from_log(section)


@given(st.binary(max_size=200))
def test_bytes_are_a_message_or_a_value_error(payload: bytes) -> None:
    try:
        assert isinstance(decode(payload), dict)
    except ValueError as error:
        assert str(error).startswith("not a VICI message")
