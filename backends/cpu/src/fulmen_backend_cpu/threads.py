"""How many threads the native kernels run on, and why."""

from __future__ import annotations

import os


def choose_threads(asked: int) -> tuple[int, str]:
    """The number of threads for `asked` (0: choose), and the reason."""
    if asked > 0:
        return asked, "asked for"
    allowed = usable_cores()
    return allowed, f"the process may use {allowed} cores"


def usable_cores() -> int:
    """The cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
