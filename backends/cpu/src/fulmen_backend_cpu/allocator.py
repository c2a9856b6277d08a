"""Keep freed memory in the process: a training step frees and asks for the same hundred megabytes again and again.

By default glibc returns large blocks to the system at once, and every step pays for their pages anew: 30,000 page
faults a second, 7 to 15 % of a step of 1,024 tokens (docs/log.md, 2026-11-23).
"""

from __future__ import annotations

import ctypes
import sys

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_BLOCKS_UP_TO = 1 << 30  # bytes; larger blocks still come from and go to the system
_KEEP = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed, for the rest of the process; False where there is no glibc."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _BLOCKS_UP_TO)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEEP))
