"""`python -m bench.data`: what a byte and a packet cost in the kernel's data path, beside other VPNs.

Instructions are counted in a guest whose clock they are, one processor for both ends, so a busy machine
changes no figure, only how long it takes. They are not cycles: an AVX2 instruction counts as one, and so does
a miss of the cache. Read ratios, not speeds. Real cards and several processors are not in it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.data import machine
from bench.data.tables import OURS, table

KERNEL_PATHS = ["plain", "esp", "esp+offload", "wireguard"]
DAEMONS = ["tinc", "nebula"]
VARIANTS = [
    "unencrypted",
    "without the module",
    "as it is",
    "without ESN, window 32",
    "window 32",
    "window 4,096",
    "5,000 peers",
    "checksums in software",
    "cipher without AES-NI",
]
"""What the guest's `measure` knows: our connections, each thing changed by itself."""
MEGA = 1_000_000


def jobs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What each guest does, the most telling first."""
    smoke = arguments.smoke
    traffic = {
        "tcp": [0, [2 * MEGA, 6 * MEGA] if smoke else [4 * MEGA, 20 * MEGA]],
        "udp": [1400, [256, 768] if smoke else [1024, 3072]],
        "small": [64, [256, 768] if smoke else [1024, 3072]],
    }
    daemons = {"tcp": [0, [2 * MEGA, 6 * MEGA]], "udp": [1400, [512, 1536]], "small": [64, [512, 1536]]}
    if smoke:
        runs = [["gso", [4], KERNEL_PATHS, ["tcp", "udp"]]]
        return [{"do": "measure", "traffic": traffic, "runs": runs}]
    kinds = list(traffic)
    runs = [["gso", [4, 6], KERNEL_PATHS, kinds], ["tso", [4], KERNEL_PATHS, ["tcp"]]]
    runs += [["none", [4], KERNEL_PATHS, ["tcp"]]]
    # Of large packets so few pass in a second that how TCP begins shows for longer.
    held: dict[str, Any] = {"mtus": [[1500, 6], [9000, 20]], "rate": arguments.rate}
    held["goodput_paths"] = [[family, ["plain", OURS[family], "wireguard"]] for family in (4, 6)]
    found: list[dict[str, Any]] = [
        {"do": "measure", "traffic": traffic, "runs": runs},
        {"do": "measure", **held},
    ]
    parts = {"variants": VARIANTS, "profiled": VARIANTS[:3]}
    found.append({"do": "measure", **parts, "tcp": traffic["tcp"][1], "small": [512, 1536]})
    if not arguments.kernel_only:
        found.append({"do": "measure", "traffic": daemons, "runs": [["gso", [4, 6], DAEMONS, kinds]]})
    return found


def main() -> int:
    arguments = _arguments()
    began, failed = time.monotonic(), False
    measured: list[dict[str, Any]] = []
    for release in arguments.kernels:
        until = time.monotonic() + arguments.within
        try:
            kernel = machine.kernel(release)
            with tempfile.TemporaryDirectory(prefix="swanmesh-data-") as folder:
                base = machine.initrd(kernel, Path(folder))
                for job in jobs(arguments):
                    left = max(until - time.monotonic(), 1.0)
                    for found in machine.run(kernel, base, job, counted=True, within=left):
                        if "what" in found:
                            measured.append({"kernel": kernel.version, **found})
                            print(
                                f"{time.monotonic() - began:5.0f} s  {measured[-1]}",
                                file=sys.stderr,
                                flush=True,
                            )
        except machine.NotThere as error:
            print(f"{release}: {error}", file=sys.stderr)
            failed = True
    failed = failed or any("failed" in one for one in measured)
    print(table(measured))
    if arguments.json is not None:
        document = {
            "schema": 1,
            "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "method": " ".join((__doc__ or "").split()),
            "complete": not failed,
            "figures": measured,
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if failed or not measured else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.data", description=__doc__)
    parser.add_argument(
        "--kernels",
        nargs="+",
        metavar="RELEASE",
        default=[machine.own_release() or "bookworm"],
        help="releases of Debian whose cloud kernel is measured, such as bookworm trixie",
    )
    parser.add_argument("--smoke", action="store_true", help="a few figures, to see that it works")
    parser.add_argument("--kernel-only", action="store_true", help="without tinc and Nebula")
    parser.add_argument("--rate", type=int, default=50, help="Mbit/s of the link that is held to a rate")
    parser.add_argument(
        "--within",
        type=float,
        default=2400,
        help="seconds after which a kernel's guests end with what they have",
    )
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
