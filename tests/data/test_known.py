"""What is made of a kernel's known faults; needs no guest."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.known import mended, shown, unknown

REPEATED = "AssertionError: 31 IVs came with other contents: [...]"
LOST = "AssertionError: packets were lost at the rollover: a {'XfrmInStateProtoError': 1}"


def check(
    name: str, detail: str = "", *, family: int = 6, offload: bool = True, ok: bool = False
) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "family": family, "offload": offload, "card": "gso"}


@pytest.mark.parametrize(
    ("kernel", "found", "known"),
    [
        ("6.1.0-56-cloud-amd64", check("tcp", REPEATED), True),
        ("6.12.117+deb13-cloud-amd64", check("rekeys under load", REPEATED), True),
        ("6.1.0-56-cloud-amd64", check("sequence numbers past 2^32", LOST, family=4), True),
        ("6.1.0-56-cloud-amd64", check("tcp", REPEATED, family=4), False),
        ("6.1.0-56-cloud-amd64", check("tcp", REPEATED, offload=False), False),
        ("6.1.0-56-cloud-amd64", check("tcp", "AssertionError: on the wire: {'protocol 6': 1}"), False),
        ("6.18.1-cloud-amd64", check("tcp", REPEATED), False),
    ],
)
def test_a_failure_is_known_by_kernel_place_and_words(
    kernel: str, found: dict[str, Any], known: bool
) -> None:
    assert list(unknown(kernel, [found])) == ([] if known else [found])
    assert bool(shown(kernel, [found])) == known


def test_what_should_fail_and_holds_is_told() -> None:
    held = [check("tcp", ok=True), check("udp", ok=True), check("tcp", ok=True, offload=False)]
    held.append({**check("tcp", ok=True), "encap": True})  # where there is nothing of the fault
    assert [line.split(":")[0] for line in mended("6.1.0-56-cloud-amd64", held)] == ["tcp"]
    assert list(mended("7.2.13-cloud-amd64", held)) == []
