"""`make demo`: hosts in full mesh, and one more that joins while traffic flows.

Run as `lab/run python -m lab.demo [HOSTS]`. HOSTS (6) counts the one that joins. The last line is
what was measured; the exit status is 0 only if no packet was lost, no association changed, and nothing
crossed in clear.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from lab.host import Host
from lab.measuring import Measurement, Result
from lab.mesh import Mesh, mesh
from lab.waiting import wait_until

_BANDWIDTH = "100M" if os.environ.get("LAB") == "native" else "5M"
"""Bits a second that iperf3 sends: a load, not a benchmark. User-mode Linux encrypts in plain C."""
_LONGEST = 3600
_AFTER = 200
"""Answered pings that must follow the growth on one stream: two to four seconds of them."""


class Demo:
    """The steps, each told as it begins."""

    def __init__(self, hosts: int) -> None:
        self._hosts = hosts
        self._started = time.monotonic()

    def run(self) -> Result:
        """Raises TimeoutError or RuntimeError if there is nothing to measure."""
        members = self._hosts - 1
        self._say(f"{self._hosts} hosts: a network namespace, a charon and a `swanmesh run` each")
        with mesh(members, spare=1, name="demo") as lab:
            lab.start_charons()
            self._say("every charon answers; the controllers start")
            lab.start_controllers()
            lab.wait_until_full(60 + 4 * members)
            pairs = members * (members - 1) // 2
            self._say(f"full mesh of {members}: {pairs} pairs, one association each")
            print(f"\n{lab[0].short}# swanmesh status\n{lab[0].swanmesh('status').stdout}", flush=True)
            measurement = Measurement(lab, lab.hosts[:members])
            self._say(
                f"{measurement.streams} streams of pings, up to 100 a second, and iperf3 at {_BANDWIDTH}bit/s"
            )
            with _iperf(lab[0], lab[1]) as iperf:
                self._grow(lab, measurement)
                self._settle(lab)
                throughput = iperf()
            result = measurement.finish()
        self._say(f"{result.pings} pings, iperf3 {throughput}, {result.esp} ESP packets captured")
        for pair in result.changed:
            print(f"changed: {pair}")
        for packet in result.clear[:10]:
            print(f"in clear: {packet.source} > {packet.destination} {packet.detail}")
        return result

    def _grow(self, lab: Mesh, measurement: Measurement) -> None:
        newcomer, members = lab.hosts[-1], lab.hosts[: lab.members]
        self._say(
            f"{newcomer.short} joins: `swanmesh add-peer {newcomer.name} {newcomer.addresses[0]}` on each"
        )
        for host in members:
            done = host.swanmesh("add-peer", newcomer.name, *newcomer.addresses)
            print(f"  {host.short}: {done.stdout.strip()}", flush=True)
        peers = newcomer.folder / "members"
        peers.write_text("".join(f"{host.name} {' '.join(host.addresses)}\n" for host in members))
        newcomer.swanmesh("add-peer", "--from", str(peers))
        lab.wait_until_full(60 + 4 * len(lab), hosts=lab.hosts)
        self._say(f"full mesh of {len(lab)}; {newcomer.short} sends and receives as well")
        measurement.join(newcomer)

    def _settle(self, lab: Mesh) -> None:
        """Traffic goes on for a while: what growth breaks may break only after it."""
        goal = lab[0].ping(lab[-1], _AFTER, 0.01)
        self._say(f"{goal.received} of {goal.sent} pings answered by the newcomer")

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._started:5.1f} s] {text}", flush=True)


@contextlib.contextmanager
def _iperf(server: Host, client: Host) -> Iterator[Any]:
    """An iperf3 stream; what it yields ends the stream and says in words what it came to."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    listening = server.popen("iperf3", "--server", **quiet)
    report = client.folder / "iperf.json"
    try:
        wait_until(lambda: ":5201 " in server.exec("ss", "-Hltn").stdout, 20, "the iperf3 server listens")
        with report.open("w") as output:
            arguments = (
                "--json",
                "-b",
                _BANDWIDTH,
                "--pacing-timer",
                "50000",
                "-t",
                str(_LONGEST),
                "-c",
                server.addresses[0],
            )
            sending = client.popen("iperf3", *arguments, stdout=output, stderr=subprocess.DEVNULL)

        def end() -> str:
            sending.send_signal(signal.SIGINT)
            sending.wait(timeout=20)
            return _throughput(report)

        try:
            yield end
        finally:
            sending.kill()
            sending.wait()
    finally:
        listening.kill()
        listening.wait()


def _throughput(report: Path) -> str:
    document = json.loads(report.read_text())
    total = document["end"].get("sum_sent")
    if not total or not total["bytes"]:
        raise RuntimeError(f"iperf3 sent nothing: {document.get('error')}")
    return f"{total['bits_per_second'] / 1e6:.1f} Mbit/s with {total['retransmits']} retransmissions"


def last_line(hosts: int, result: Result) -> str:
    """What was measured, in one line."""
    return (
        f"{hosts} hosts, {hosts * (hosts - 1) // 2} pairs: {result.lost} packets lost, "
        f"{len(result.changed)} associations changed, {len(result.clear)} packets in clear"
    )


def main() -> int:
    """The command. Raises SystemExit for bad usage."""
    words = sys.argv[1:] or ["6"]
    if len(words) != 1 or not words[0].isdigit() or not 3 <= int(words[0]) <= 200:
        sys.stderr.write(f"HOSTS={' '.join(words)}: say a number from 3 to 200\n")
        return 2
    if not os.environ.get("LAB"):
        sys.stderr.write("run it as: lab/run python -m lab.demo [HOSTS], or: make demo\n")
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    hosts = int(words[0])
    try:
        result = Demo(hosts).run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing is left behind\n")
        return 130
    except (TimeoutError, RuntimeError, AssertionError) as error:
        notes = "\n".join(getattr(error, "__notes__", []))
        sys.stderr.write(f"the demo could not be measured: {error}\n{notes}\n")
        return 1
    print(last_line(hosts, result))
    return 0 if result.clean else 1


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
