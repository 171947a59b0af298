"""In which functions of the kernel instructions go: one sample in so many, by the kernel's own clock event.

The guest's clock counts instructions, so a sample a period of it is one of every so many instructions, whatever
the host does meanwhile. What runs with interrupts off is counted where they come on again.
"""

import bisect
import ctypes
import mmap
import os
import struct

_PERF_EVENT_OPEN = 298  # x86-64
_PAGES = 256
_ENABLE, _DISABLE = 0x2400, 0x2401


class Samples:
    """`with` it, the kernel is sampled; then `functions` tells how many of the samples each function had."""

    def __init__(self, period=50_000):
        attributes = bytearray(128)
        # type software, size, config cpu-clock, period, of each the address; disabled, without user and idle
        struct.pack_into("=IIQQQ", attributes, 0, 1, len(attributes), 0, period, 1)
        struct.pack_into("=Q", attributes, 40, 1 | 1 << 4 | 1 << 7)
        libc = ctypes.CDLL(None, use_errno=True)
        raw = (ctypes.c_char * len(attributes)).from_buffer(attributes)
        self._fd = libc.syscall(_PERF_EVENT_OPEN, raw, -1, 0, -1, 0)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "perf_event_open")
        self._room = mmap.mmap(self._fd, (1 + _PAGES) * mmap.PAGESIZE)
        self._libc = libc

    def __enter__(self):
        self._libc.ioctl(self._fd, _ENABLE, 0)
        return self

    def __exit__(self, *_):
        self._libc.ioctl(self._fd, _DISABLE, 0)

    def functions(self):
        names = symbols()
        starts = [start for start, _ in names]
        found = {}
        for address in self._addresses():
            name = names[bisect.bisect_right(starts, address) - 1][1]
            found[name] = found.get(name, 0) + 1
        self._room.close()
        os.close(self._fd)
        return found

    def _addresses(self):
        head = struct.unpack_from("=Q", self._room, 1024)[0]
        size, place = _PAGES * mmap.PAGESIZE, 0
        while place + 8 <= min(head, size):
            kind, _, length = struct.unpack_from("=IHH", self._room, mmap.PAGESIZE + place)
            if kind == 9:  # PERF_RECORD_SAMPLE
                yield struct.unpack_from("=Q", self._room, mmap.PAGESIZE + place + 8)[0]
            place += length


def symbols():
    """Where each function begins, and its name with its module's."""
    found = []
    for line in open("/proc/kallsyms"):
        address, kind, name, *module = line.split()
        if kind in "tTwW":
            found.append((int(address, 16), name + (f" {module[0]}" if module else "")))
    return sorted(found)
