"""A server in a process of its own, pinned to given cores, on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Self


class ServerError(Exception):
    """The server did not start; one sentence."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """Runs `command`; a context manager that leaves no process behind, also on Ctrl-C.

    The server leads a process group of its own: Ctrl-C in the terminal reaches the driver alone, which then ends the
    whole group. Its output goes to `log`.
    """

    def __init__(
        self, command: Sequence[str], port: int, cores: Collection[int], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", log
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "KMP_", "MKL_"))}
        clean |= {"OMP_NUM_THREADS": str(len(cores)), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        clean["PATH"] = f"{Path(command[0]).parent}{os.pathsep}{clean.get('PATH', '')}"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean | dict(environment),
                start_new_session=True,
            )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, cores)  # before it imports anything: threads inherit it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, patience: float) -> float:
        """Wait until ``/v1/models`` answers; return the seconds it took.

        Raises:
            ServerError: the server ended, or did not answer within `patience` seconds.
        """
        begin = time.monotonic()
        while time.monotonic() - begin < patience:
            if (code := self._process.poll()) is not None:
                raise ServerError(f"the server ended with exit code {code} (log: {self.log})")
            with (
                contextlib.suppress(OSError),  # urllib's errors are some
                urllib.request.urlopen(f"{self.url}/v1/models", timeout=5),
            ):
                return time.monotonic() - begin
            time.sleep(0.1)
        raise ServerError(f"the server did not answer within {patience:.0f} s (log: {self.log})")

    def close(self) -> None:
        """End the server and whatever it started: asked first, then made to. Idempotent."""
        for sign, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
