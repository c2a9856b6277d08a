"""Memory bandwidth, measured beside the figures that are divided by it: every thread scans an array of its own.

The scan is libc's `memchr` for a byte that is not there: a vectorised read of every byte, which releases Python's lock
and needs no compiler and no library. The arrays are far larger than any cache and written first, so that each page is
its own memory.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Sequence

_BYTES = 1 << 28  # for each thread: past the largest shared cache of a core's part
_REPEATS = 3


def read_bandwidth(cores: Sequence[int], repeats: int = _REPEATS, size: int = _BYTES) -> float:
    """Bytes a second that one thread on each of `cores` can read together: the best of `repeats` passes."""
    libc = ctypes.CDLL(None)
    libc.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    libc.memchr.restype = ctypes.c_void_p
    start, stop = threading.Barrier(len(cores) + 1), threading.Barrier(len(cores) + 1)

    def scan(core: int) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core})  # of this thread alone
        array = (ctypes.c_char * size)()
        ctypes.memset(array, 1, size)
        for _ in range(repeats):
            start.wait()
            assert libc.memchr(ctypes.addressof(array), 2, size) is None
            stop.wait()

    threads = [threading.Thread(target=scan, args=(core,)) for core in cores]
    for thread in threads:
        thread.start()
    best = float("inf")
    for _ in range(repeats):
        start.wait()
        begin = time.perf_counter()
        stop.wait()
        best = min(best, time.perf_counter() - begin)
    for thread in threads:
        thread.join()
    return len(cores) * size / best
