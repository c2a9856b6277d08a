"""Programs that are measured: pinned to given cores, with as many threads, in a process group of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path


def start_pinned(
    command: Sequence[str],
    cores: Collection[int],
    log: Path,
    *,
    answers: bool = False,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command`, whose first word is the interpreter of its environment.

    Ctrl-C in the terminal reaches the driver alone, which then ends the whole group.

    Args:
        command: program and arguments.
        cores: that it may use.
        log: gets what it prints.
        answers: its input and output are pipes; only errors go to the log.
        environment: variables beyond those of this process, whose settings of threads are dropped.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "KMP_", "MKL_"))}
    clean |= {"OMP_NUM_THREADS": str(len(cores)), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    # PATH: engines that compile look for the programs of their environment.
    clean["PATH"] = f"{Path(command[0]).parent}{os.pathsep}{clean.get('PATH', '')}"
    with log.open("wb") as printed:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if answers else subprocess.DEVNULL,
            stdout=subprocess.PIPE if answers else printed,
            stderr=printed,
            env=clean | dict(environment or {}),
            start_new_session=True,
        )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, cores)  # before it imports anything: threads inherit it
    return process
