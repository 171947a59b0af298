"""What Prometheus reads: made from the status and a few counters, each time it asks.

Names and types follow https://prometheus.io/docs/practices/naming/: a counter ends in `_total`, a moment in
`_timestamp_seconds`. Every configured peer has its series, up or not: a peer that is configured and down must
be visible. Labels are names checked by RFC 1123, and codes of the core's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from swanmesh.control.counters import UNCODED, Counters
from swanmesh.control.reports import PeerState, PeerStatus, StatusReply


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
        yield from self._gauges()
        yield from self._ends()
        yield from self._lists()
        yield from self._counts()
        yield from self._totals()
        yield from self._peers()

    def _gauges(self) -> Iterable[Metric]:
        host, charon = self._status.host, self._status.charon
        info = GaugeMetricFamily(
            "swanmesh_info", "Always 1; versions and name.", labels=["version", "charon", "host"]
        )
        info.add_metric([host.swanmesh, charon.version, host.name], 1)
        yield info
        figures: list[tuple[str, str, float | None]] = [
            ("started_timestamp_seconds", "When the service started.", host.started),
            ("charon_reachable", "1 if charon answers.", float(charon.reachable)),
            ("charon_changed_timestamp_seconds", "When charon was reached, or lost, last.", charon.since),
            ("problems", "Mistakes in files that are kept out of force.", len(self._status.problems)),
            ("disabled", "1 while `disable` holds.", float(self._status.disabled is not None)),
            ("removals_held", "Peers whose removal waits for a confirmation.", self._counters.removals_held),
            (
                "certificate_renewal_timestamp_seconds",
                "When it is renewed, or tried.",
                self._status.next_renewal,
            ),
            ("certificate_renewals_failed", "Renewals in a row that failed.", self._status.renewals_failed),
            ("last_look_timestamp_seconds", "When charon was last looked at.", self._counters.last_resync),
        ]
        for name, text, value in figures:
            if value is not None:
                yield GaugeMetricFamily(f"swanmesh_{name}", text, value=value)

    def _ends(self) -> Iterable[Metric]:
        """The earliest for each subject in a file."""
        ends: dict[tuple[str, str], float] = {}
        for one in self._status.certificates:
            where = one.file, one.subject
            ends[where] = min(one.not_after, ends.get(where, one.not_after))
        family = GaugeMetricFamily(
            "swanmesh_certificate_not_after_timestamp_seconds",
            "When a certificate of this host's, or of its authorities', ends.",
            labels=["file", "subject"],
        )
        for (file, subject), end in ends.items():
            family.add_metric([file, subject], end)
        yield family

    def _lists(self) -> Iterable[Metric]:
        families = [
            GaugeMetricFamily(f"swanmesh_crl_{name}", text, labels=["authority", "held"])
            for name, text in (
                ("next_update_timestamp_seconds", "By when a revocation list is to be replaced."),
                ("number", "Its number."),
                ("entries", "Certificates on it."),
            )
        ]
        for one in self._status.revocation_lists:
            label = [one.authority, "yes" if one.held else "no"]
            for family, value in zip(families, (one.expires, one.number, one.entries), strict=True):
                family.add_metric(label, value)
        yield from families

    def _counts(self) -> Iterable[Metric]:
        counters = self._counters
        actions = CounterMetricFamily(
            "swanmesh_actions", "Actions carried out.", labels=["action", "reason", "accepted"]
        )
        for (kind, reason, accepted), count in sorted(counters.actions.items()):
            actions.add_metric([kind, reason, "yes" if accepted else "no"], count)
        yield actions
        for name, text, value in (
            ("charon_lost", "Times charon was lost.", counters.charon_lost),
            ("faults", "Mistakes of swanmesh's own that it survived; see its log.", counters.faults),
            ("reloads", "Times files were read again.", counters.reloads),
            ("vici_requests", "Commands and event registrations sent.", counters.vici_requests),
            ("charon_events_lost", "Events not taken in.", counters.events_lost),
        ):
            yield CounterMetricFamily(f"swanmesh_{name}", text, value)
        if (guard := self._status.guard) is not None:
            yield GaugeMetricFamily("swanmesh_guard_closed", "Networks closed to clear text.", guard.closed)
            yield GaugeMetricFamily(
                "swanmesh_guard_missing", "Parts of the guard not in force.", guard.missing
            )
            text = "Packets that blocking policies of the kernel refused, the guard's or others'."
            refused = CounterMetricFamily("swanmesh_guard_refused_packets", text, labels=["direction"])
            for direction, count in guard.refused.items():
                refused.add_metric([direction], count)
            yield refused

    def _totals(self) -> Iterable[Metric]:
        states: dict[str, int] = dict.fromkeys(get_args(PeerState), 0)
        reasons: dict[str, int] = {}
        for peer in self._status.peers:
            states[peer.state] += 1
            if peer.state != "up":
                code = peer.reason_code or UNCODED
                reasons[code] = reasons.get(code, 0) + 1
        yield _by("peers", "Peers configured, by state.", "state", states)
        yield from self._blocks()
        yield _by("peers_not_up", "Peers that are not up, by the code of the reason.", "reason", reasons)

    def _blocks(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "swanmesh_block_hosts",
            "Hosts met under a block: members up and not up, those being asked, and strangers remembered.",
            labels=["block", "state"],
        )
        for block in self._status.blocks:
            counts = {"up": block.up, "down": block.members - block.up}
            for state, count in (counts | {"asked": block.asked, "stranger": block.strangers}).items():
                family.add_metric([block.name, state], count)
        yield family

    def _peers(self) -> Iterable[Metric]:
        families = _peer_families()
        for peer in self._status.peers:
            # One host of blocks may stand at several addresses.
            label = [f"{peer.name} {peer.addresses[0]}" if peer.block else peer.name]
            for family, value in zip(families, _figures(peer), strict=True):
                family.add_metric(label, value)
        yield from families
        yield from self._clear_text()

    def _clear_text(self) -> Iterable[Metric]:
        text = "Packets in clear with the peer: passed, or came in and were refused."
        family = CounterMetricFamily("swanmesh_peer_clear_packets", text, labels=["peer", "direction"])
        for peer in self._status.peers:
            if peer.clear is not None and not peer.block:
                for way, count in (("out", peer.clear.packets_out), ("in", peer.clear.packets_in)):
                    if count is not None:
                        family.add_metric([peer.name, way], count)
        yield family


def _by(name: str, text: str, label: str, counts: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"swanmesh_{name}", text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _peer_families() -> list[GaugeMetricFamily | CounterMetricFamily]:
    """In the order of `_figures`."""

    def gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"swanmesh_peer_{name}", text, labels=["peer"])

    def counter(name: str, text: str) -> CounterMetricFamily:
        text = f"{text} the peer since the service started, over all rekeys."
        return CounterMetricFamily(f"swanmesh_peer_{name}", text, labels=["peer"])

    return [
        gauge("up", "1 if every address pair has a working association."),
        gauge("state_changed_timestamp_seconds", "When the peer came into its state."),
        gauge("associations", "Working associations with the peer."),
        gauge("address_pairs", "Address pairs with the peer."),
        gauge("failed_attempts", "Initiations in a row that came to nothing, over all address pairs."),
        gauge("certificate_not_after_timestamp_seconds", "When the certificate ends that it showed last."),
        gauge("violations", "Times in the last hour that it did what was not agreed, and was ended."),
        counter("received_bytes", "Bytes received from"),
        counter("sent_bytes", "Bytes sent to"),
        counter("received_packets", "Packets received from"),
        counter("sent_packets", "Packets sent to"),
    ]


def _figures(peer: PeerStatus) -> tuple[float, ...]:
    traffic = peer.traffic
    return (
        float(peer.state == "up"),
        peer.since,
        sum(each.works for each in peer.associations),
        len(peer.pairs),
        sum(pair.attempts for pair in peer.pairs),
        math.nan if peer.certificate_ends is None else peer.certificate_ends,
        peer.violations,
        traffic.bytes_in,
        traffic.bytes_out,
        traffic.packets_in,
        traffic.packets_out,
    )
