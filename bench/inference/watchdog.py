"""A process that ends others should their driver die without having ended them: SIGKILL leaves a driver no time.

It waits at the end of a pipe whose other end the driver alone holds. When the driver dies in whatever way, the system
closes that end. Unlike Linux's PR_SET_PDEATHSIG, this reaches the children of what was started too.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys

_CODE = """
import os, signal, sys
group = sys.stdin.buffer.readline()
if group and sys.stdin.buffer.read(1) == b"":
    try:
        os.killpg(int(group), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class Watchdog:
    """Watches this process from a session of its own, so that Ctrl-C in the terminal does not reach it."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _CODE]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )

    def guard(self, group: int) -> None:
        """End the process group `group` should this process die. Once."""
        self._tell(f"{group}\n".encode())

    def dismiss(self) -> None:
        """The group has ended; or there is none. Idempotent."""
        self._tell(b".")
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, message: bytes) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(message)
