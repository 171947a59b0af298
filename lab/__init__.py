"""The lab: meshes of real hosts, each with a charon, a kernel's IPsec and a cable of its own.

Works inside the kernel that `lab/run` gives:

    with mesh(3) as lab:
        lab.start()
        lab.wait_until_full()
        assert lab[0].ping(lab[1]).lost == 0
"""

from lab.captures import Capture, Packet
from lab.host import CommandFailed, Host
from lab.kernel import XfrmState
from lab.links import Link
from lab.mesh import Mesh, address_pairs, mesh
from lab.pings import PingResult, PingStream
from lab.waiting import wait_until

__all__ = [
    "Capture",
    "CommandFailed",
    "Host",
    "Link",
    "Mesh",
    "Packet",
    "PingResult",
    "PingStream",
    "XfrmState",
    "address_pairs",
    "mesh",
    "wait_until",
]
