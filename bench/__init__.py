"""Measurements side by side: swanmesh beside swanctl and hand-written connections, in one run.

`make bench` measures one host with thousands of peers (`python -m bench`), `make bench-mesh` a whole mesh in
the lab's kernel (`python -m bench.mesh`). Seconds differ from machine to machine; what counts are the ratios.
"""
