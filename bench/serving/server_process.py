"""A server in a process of its own, pinned to given cores, on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import socket
import time
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

from inference.pinned_process import PinnedProcess


class ServerError(Exception):
    """The server did not start; one sentence."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """Runs `command`; a context manager that leaves no process behind, on Ctrl-C and SIGKILL neither.

    Its output goes to `log`.
    """

    def __init__(
        self, command: Sequence[str], port: int, cores: Collection[int], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self._process = PinnedProcess(command, cores, log, environment=environment)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, patience: float, path: str = "/v1/models") -> float:
        """Wait until `path` answers 200; return the seconds it took.

        Raises:
            ServerError: the server ended, or did not answer within `patience` seconds.
        """
        begin = time.monotonic()
        while time.monotonic() - begin < patience:
            if (code := self._process.poll()) is not None:
                raise ServerError(f"the server ended with exit code {code} (log: {self.log})")
            with (
                contextlib.suppress(OSError),  # urllib's errors are some
                urllib.request.urlopen(f"{self.url}{path}", timeout=5),
            ):
                return time.monotonic() - begin
            time.sleep(0.1)
        raise ServerError(f"the server did not answer within {patience:.0f} s (log: {self.log})")

    def close(self) -> None:
        """End the server and whatever it started: asked first, then made to. Idempotent."""
        self._process.end(10.0)
