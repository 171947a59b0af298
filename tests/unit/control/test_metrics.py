"""What Prometheus reads, parsed as Prometheus would."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from swanmesh.control.metrics import Counters, reason_class, render
from tests.unit.control.plain_service import PlainService, peer_status


def samples(service: PlainService) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = render(service.status(), service.counters).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_configured_and_down_is_visible() -> None:
    service = PlainService()
    service.put(peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3", "down", "dead"))
    service.problems = ["peers.d/web4.yaml: broken"]
    seen = samples(service)
    assert seen["swanmesh_peers", (("state", "up"),)] == 1
    assert seen["swanmesh_peers", (("state", "down"),)] == 1
    assert seen["swanmesh_peers", (("state", "connecting"),)] == 0
    assert seen["swanmesh_peer_up", (("peer", "web2"),)] == 1
    assert seen["swanmesh_peer_up", (("peer", "web3"),)] == 0
    assert seen["swanmesh_peer_associations", (("peer", "web3"),)] == 0
    assert seen["swanmesh_peer_received_bytes", (("peer", "web2"),)] == 1_500_000
    assert seen["swanmesh_peer_sent_packets", (("peer", "web2"),)] == 12
    assert seen["swanmesh_problems", ()] == 1
    assert seen["swanmesh_charon_reachable", ()] == 1


def test_a_peer_that_is_up_without_a_working_association_is_not_counted() -> None:
    service = PlainService()
    peer = peer_status("web2", "203.0.113.2")
    peer.associations[0].works = False
    service.put(peer)
    assert samples(service)["swanmesh_peer_associations", (("peer", "web2"),)] == 0


def test_actions_by_kind_and_class_of_reason() -> None:
    service = PlainService()
    service.counters.count_action("initiate", "ours to initiate: attempt 3 of web2")
    service.counters.count_action("initiate", "ours to initiate: attempt 4 of web3")
    service.counters.count_action("initiate", "ours to initiate", accepted=False)
    labels = (("accepted", "yes"), ("action", "initiate"), ("reason", "ours_to_initiate"))
    assert samples(service)["swanmesh_actions_total", labels] == 2


def test_reasons_cannot_make_labels_without_end() -> None:
    counters = Counters()
    for number in range(1000):
        word = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        counters.count_action("load", f"reason {word}")
    assert len(counters.actions) <= 66
    assert sum(counters.actions.values()) == 1000
    assert counters.actions["load", "other", True] > 900


def test_reason_class_is_a_plain_word() -> None:
    assert reason_class('a "quoted"\nreason\\ (203.0.113.9)') == "a_quoted_reason"
    assert reason_class("203.0.113.9 is dead") == "other"
    assert len(reason_class("x" * 500)) <= 48


def test_requests_to_charon_are_counted() -> None:
    service = PlainService()
    service.counters = Counters(vici_requests=7)
    assert samples(service)["swanmesh_vici_requests_total", ()] == 7
