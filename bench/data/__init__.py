"""The kernel's data path in guests of QEMU: what a byte costs beside other VPNs, and whether it is right.

`make bench-data` counts (`python -m bench.data`), `make test-data` tests (`tests/data`), in the same guests.
"""
