"""Programs that are measured: pinned to given cores, with as many threads, in a process group that ends with us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from inference.watchdog import Watchdog


class PinnedProcess(subprocess.Popen[bytes]):
    """Runs `command`, whose first word is the interpreter of its environment, until `end` or the death of this process.

    Ctrl-C in the terminal reaches the driver alone, which then ends the whole group.

    Args:
        command: program and arguments.
        cores: that it may use.
        log: gets what it prints.
        answers: its input and output are pipes; only errors go to the log.
        environment: variables beyond those of this process, whose settings of threads are dropped.
    """

    def __init__(
        self,
        command: Sequence[str],
        cores: Collection[int],
        log: Path,
        *,
        answers: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "KMP_", "MKL_"))}
        clean |= {"OMP_NUM_THREADS": str(len(cores)), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        # PATH: engines that compile look for the programs of their environment.
        clean["PATH"] = f"{Path(command[0]).parent}{os.pathsep}{clean.get('PATH', '')}"
        self._watchdog = Watchdog()  # first: what it has yet to start is nothing to end
        try:
            with log.open("wb") as printed:
                super().__init__(
                    list(command),
                    stdin=subprocess.PIPE if answers else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if answers else printed,
                    stderr=printed,
                    env=clean | dict(environment or {}),
                    start_new_session=True,
                )
        except BaseException:
            self._watchdog.dismiss()
            raise
        self._watchdog.guard(self.pid)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.pid, cores)  # before it imports anything: threads inherit it

    def end(self, patience: float = 0.0) -> None:
        """End it and whatever it started; with `patience` (seconds) it is asked first, then made to. Idempotent."""
        for pipe in (self.stdin, self.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        steps: list[tuple[signal.Signals, float | None]] = [(signal.SIGKILL, None)]
        if patience:
            steps.insert(0, (signal.SIGTERM, patience))
        for sign, seconds in steps:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(seconds)
        self._watchdog.dismiss()
