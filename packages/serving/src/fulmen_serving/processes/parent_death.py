"""A child that does not outlive its parent, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def die_with(parent: int) -> None:
    """Have Linux kill this process when `parent`, which started it, dies; other systems have no such thing, and there a
    child finds its pipe closed after its step.

    Linux means the *thread* that started it: it must live as long as the parent should.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)
