"""What Prometheus reads: made from the status and a few counters, each time it asks.

Every configured peer has its series, up or not: a peer that is configured and down must be visible. Labels
are names checked by RFC 1123 and a bounded set of words; nothing that grows with time becomes a label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from swanmesh.control.protocol import PeerState, PeerStatus, StatusReply

_REASON_CLASSES = 64
_NOT_A_WORD = re.compile(r"[^a-z]+")


@dataclass(slots=True, kw_only=True)
class Counters:
    """What the service counts over its life and the status does not tell."""

    actions: dict[tuple[str, str, bool], int] = field(default_factory=dict)
    """By kind of action, class of reason and whether charon accepted it."""
    charon_lost: int = 0
    faults: int = 0
    """Mistakes of swanmesh's own that its loop survived."""
    reloads: int = 0
    vici_requests: int = 0
    """Packets sent to charon: commands and event registrations."""
    events_lost: int = 0
    """Events of charon's that were not understood or came too fast."""
    removals_held: int = 0
    """Peers that would be removed, were they not too many at once."""
    last_resync: float | None = None
    """When charon was last compared as a whole, in seconds since the epoch."""

    def count_action(self, kind: str, reason: str, *, accepted: bool = True) -> None:
        """One action carried out, or refused by charon."""
        key = (kind, reason_class(reason), accepted)
        if key not in self.actions and len(self.actions) >= _REASON_CLASSES:
            key = (kind, "other", accepted)
        self.actions[key] = self.actions.get(key, 0) + 1


def reason_class(reason: str) -> str:
    """The part of a reason that does not change from peer to peer, as a label's value: what stands before a
    colon, a bracket or a digit, such as `ours_to_initiate`."""
    head = re.split(r"[:;(\[0-9]", reason, maxsplit=1)[0].lower()
    return _NOT_A_WORD.sub("_", head).strip("_")[:48] or "other"


def render(status: StatusReply, counters: Counters) -> bytes:
    """Prometheus' text format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(status, counters))
    ProcessCollector(namespace="swanmesh", registry=registry)
    return generate_latest(registry)


class _Collector:
    def __init__(self, status: StatusReply, counters: Counters) -> None:
        self._status = status
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        yield from self._service()
        yield from self._totals()
        yield from self._peers()

    def _service(self) -> Iterable[Metric]:
        status, counters = self._status, self._counters
        info = GaugeMetricFamily(
            "swanmesh_info", "Always 1; versions and name.", labels=["version", "charon", "host"]
        )
        info.add_metric([status.host.swanmesh, status.charon.version, status.host.name], 1)
        yield info
        yield _gauge("swanmesh_start_time_seconds", "When the service started.", status.host.started)
        yield _gauge("swanmesh_charon_reachable", "1 if charon answers.", float(status.charon.reachable))
        yield _gauge(
            "swanmesh_charon_since_seconds", "Since when charon answers, or does not.", status.charon.since
        )
        yield _gauge(
            "swanmesh_problems", "Mistakes in files that are kept out of force.", len(status.problems)
        )
        yield _gauge(
            "swanmesh_removals_held", "Peers whose removal waits for a confirmation.", counters.removals_held
        )
        if counters.last_resync is not None:
            yield _gauge(
                "swanmesh_last_resync_timestamp_seconds",
                "When charon was last compared as a whole.",
                counters.last_resync,
            )
        actions = CounterMetricFamily(
            "swanmesh_actions", "Actions carried out.", labels=["action", "reason", "accepted"]
        )
        for (kind, reason, accepted), count in sorted(counters.actions.items()):
            actions.add_metric([kind, reason, "yes" if accepted else "no"], count)
        yield actions
        yield CounterMetricFamily("swanmesh_charon_lost", "Times charon was lost.", counters.charon_lost)
        yield CounterMetricFamily(
            "swanmesh_faults", "Mistakes of swanmesh's own that it survived; see its log.", counters.faults
        )
        yield CounterMetricFamily("swanmesh_reloads", "Times files were read again.", counters.reloads)
        yield CounterMetricFamily(
            "swanmesh_vici_requests", "Commands and event registrations sent.", counters.vici_requests
        )
        yield CounterMetricFamily("swanmesh_charon_events_lost", "Events not taken in.", counters.events_lost)

    def _totals(self) -> Iterable[Metric]:
        by_state: dict[str, int] = dict.fromkeys(get_args(PeerState), 0)
        for peer in self._status.peers:
            by_state[peer.state] = by_state.get(peer.state, 0) + 1
        peers = GaugeMetricFamily("swanmesh_peers", "Peers configured, by state.", labels=["state"])
        for state, count in by_state.items():
            peers.add_metric([state], count)
        yield peers

    def _peers(self) -> Iterable[Metric]:
        families = _peer_families()
        for peer in self._status.peers:
            label = [peer.name]
            for name, value in _figures(peer).items():
                families[name].add_metric(label, value)
        yield from families.values()


def _peer_families() -> dict[str, GaugeMetricFamily | CounterMetricFamily]:
    def gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"swanmesh_peer_{name}", text, labels=["peer"])

    return {
        "up": gauge("up", "1 if every address pair has a working association."),
        "since": gauge("since_seconds", "When the peer came into its state."),
        "associations": gauge("associations", "Working associations with the peer."),
        "pairs": gauge("address_pairs", "Address pairs with the peer."),
        "attempts": gauge("attempts", "Initiations since the last success, over all address pairs."),
        # Gauges: they start anew with each CHILD_SA, which a counter may not.
        "bytes_in": gauge("received_bytes", "Bytes received by the present CHILD_SAs."),
        "bytes_out": gauge("sent_bytes", "Bytes sent by the present CHILD_SAs."),
        "packets_in": gauge("received_packets", "Packets received by the present CHILD_SAs."),
        "packets_out": gauge("sent_packets", "Packets sent by the present CHILD_SAs."),
    }


def _figures(peer: PeerStatus) -> dict[str, float]:
    there = peer.associations
    return {
        "up": float(peer.state == "up"),
        "since": peer.since,
        "associations": sum(1 for each in there if each.works),
        "pairs": len(peer.pairs),
        "attempts": sum(pair.attempts for pair in peer.pairs),
        "bytes_in": sum(each.bytes_in for each in there),
        "bytes_out": sum(each.bytes_out for each in there),
        "packets_in": sum(each.packets_in for each in there),
        "packets_out": sum(each.packets_out for each in there),
    }


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
