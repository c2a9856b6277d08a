"""A child process as its parent sees it: a module of this program, sockets to speak over, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection

_GRACE = 0.5  # seconds from the end of what it says to its own, before it is made to end


def start_child(module: str, channels: int = 1) -> tuple[subprocess.Popen[bytes], list[Connection]]:
    """Run ``python -m module PARENT FD...`` and return it with our ends of its `channels` socket pairs.

    The child, which calls `settle_in`, dies with the *thread* that called this, as well as with the process.
    """
    pairs = [socket.socketpair() for _ in range(channels)]
    theirs = [pair[1].fileno() for pair in pairs]
    command = [sys.executable, "-P", "-m", module, str(os.getpid()), *map(str, theirs)]
    # Until it ignores them, signals to all processes of a terminal must not end it.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=theirs)
    except BaseException:
        for ours, _ in pairs:
            ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for _, other in pairs:
            other.close()
    return process, [Connection(ours.detach()) for ours, _ in pairs]


def end_child(process: subprocess.Popen[bytes]) -> str:
    """Wait a moment for a child whose channels are closed, then kill it; return how it ended, in words."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    process.kill()
    code = process.wait()
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    return f"it was killed by {name}"
