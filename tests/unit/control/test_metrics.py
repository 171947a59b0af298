"""What Prometheus reads, parsed as Prometheus would."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from swanmesh.control.counters import Counters
from swanmesh.control.metrics import render
from swanmesh.control.reports import ClearText, Traffic
from tests.unit.control.plain_service import PlainService, peer_status


def text(service: PlainService) -> str:
    return render(service.reply([*service.peers.values()]), service.counters).decode()


def samples(service: PlainService) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text(service))
        for sample in family.samples
    }


def test_configured_and_down_is_visible() -> None:
    service = PlainService()
    down = peer_status("web3", "203.0.113.3", "down", "no answer to IKE_SA_INIT")
    down.reason_code = "peer-unreachable"
    service.put(peer_status("web2", "203.0.113.2"), down)
    service.problems = ["peers.d/web4.yaml: broken"]
    seen = samples(service)
    assert seen["swanmesh_peers", (("state", "up"),)] == 1
    assert seen["swanmesh_peers", (("state", "down"),)] == 1
    assert seen["swanmesh_peers", (("state", "connecting"),)] == 0
    assert seen["swanmesh_peers_not_up", (("reason", "peer-unreachable"),)] == 1
    assert seen["swanmesh_peer_up", (("peer", "web2"),)] == 1
    assert seen["swanmesh_peer_up", (("peer", "web3"),)] == 0
    assert seen["swanmesh_peer_associations", (("peer", "web3"),)] == 0
    assert seen["swanmesh_peer_failed_attempts", (("peer", "web3"),)] == 3
    assert seen["swanmesh_problems", ()] == 1
    assert seen["swanmesh_charon_reachable", ()] == 1


def test_a_peer_that_is_up_without_a_working_association_is_not_counted() -> None:
    service = PlainService()
    peer = peer_status("web2", "203.0.113.2")
    peer.associations[0].works = False
    service.put(peer)
    assert samples(service)["swanmesh_peer_associations", (("peer", "web2"),)] == 0


def test_traffic_is_the_whole_of_it_in_counters() -> None:
    service = PlainService()
    peer = peer_status("web2", "203.0.113.2")
    peer.traffic = Traffic(bytes_in=10**12, bytes_out=2048, packets_in=10**9, packets_out=12)
    service.put(peer)
    seen = samples(service)
    assert seen["swanmesh_peer_received_bytes_total", (("peer", "web2"),)] == 10**12
    assert seen["swanmesh_peer_sent_bytes_total", (("peer", "web2"),)] == 2048
    assert seen["swanmesh_peer_received_packets_total", (("peer", "web2"),)] == 10**9
    assert seen["swanmesh_peer_sent_packets_total", (("peer", "web2"),)] == 12


def test_clear_text_is_counted_where_it_can_be() -> None:
    service = PlainService()
    open_, closed = peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3")
    open_.clear = ClearText(refused=False, packets_out=7, packets_in=0)
    closed.clear = ClearText(refused=True, packets_in=5)
    service.put(open_, closed, peer_status("web4", "203.0.113.4"))
    name = "swanmesh_peer_clear_packets_total"
    assert {labels: value for (metric, labels), value in samples(service).items() if metric == name} == {
        (("direction", "out"), ("peer", "web2")): 7,
        (("direction", "in"), ("peer", "web2")): 0,
        (("direction", "in"), ("peer", "web3")): 5,
    }


def test_actions_are_counted_by_the_code_of_their_reason() -> None:
    service = PlainService()
    service.counters.count_action("initiate", "ours-to-initiate")
    service.counters.count_action("initiate", "ours-to-initiate")
    service.counters.count_action("initiate", "ours-to-initiate", accepted=False)
    service.counters.count_action("load", "")
    seen = samples(service)
    labels = (("accepted", "yes"), ("action", "initiate"), ("reason", "ours-to-initiate"))
    assert seen["swanmesh_actions_total", labels] == 2
    assert seen["swanmesh_actions_total", (("accepted", "yes"), ("action", "load"), ("reason", "other"))] == 1


def test_names_and_types_are_those_of_prometheus() -> None:
    """https://prometheus.io/docs/practices/naming/: totals are counters and counters totals, and a moment is
    neither a plain number of seconds nor an age."""
    service = PlainService()
    service.put(peer_status("web2", "203.0.113.2"))
    service.counters = Counters(vici_requests=7, last_resync=1_700_000_000.0)
    types = dict(re.findall(r"^# TYPE (swanmesh_\S+) (\S+)$", text(service), re.MULTILINE))
    ours = {name: kind for name, kind in types.items() if not name.startswith("swanmesh_process_")}
    assert len(ours) > 15
    for name, kind in ours.items():
        assert (kind == "counter") == name.endswith("_total"), name
        assert re.search(r"_seconds$", name) is None or name.endswith("_timestamp_seconds"), name
    assert samples(service)["swanmesh_vici_requests_total", ()] == 7
    assert samples(service)["swanmesh_last_look_timestamp_seconds", ()] == 1_700_000_000.0
