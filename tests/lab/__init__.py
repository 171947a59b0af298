"""The lab: meshes of real hosts, each with a charon, a kernel's IPsec and a cable of its own.

Works inside the kernel that `tests/lab/run` gives:

    with mesh(3) as lab:
        lab.start()
        lab.wait_until_full()
        assert lab[0].ping(lab[1]).lost == 0
"""

from tests.lab.captures import Capture, Packet
from tests.lab.host import CommandFailed, Host
from tests.lab.kernel import XfrmState
from tests.lab.links import Link
from tests.lab.mesh import Mesh, address_pairs, mesh
from tests.lab.pings import PingResult, PingStream
from tests.lab.waiting import wait_until

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
