"""What the server says of itself, and what its processes hold: memory, threads, files. Linux."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process. `rss` in bytes."""

    pid: int
    rss: int
    threads: int
    files: int


def process_state(pid: int) -> ProcessState | None:
    """How a process stands now; None if it is gone."""
    place = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        if "VmRSS" not in status:  # it has ended, and nobody has waited for it yet
            return None
        rss = int(status["VmRSS"].split()[0]) * 1024
        return ProcessState(pid, rss, int(status["Threads"]), len(list((place / "fd").iterdir())))
    except (FileNotFoundError, ProcessLookupError):
        return None


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that still exist, zombies too."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except FileNotFoundError:
            continue
    return sorted(found)


def model_process(server: int) -> int | None:
    """The process of `server` that runs the model; None while there is none, or if it runs in the server."""
    for pid in children(server):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except FileNotFoundError:
            continue
        if b"model_worker" in command:
            return pid
    return None


async def metrics(client: httpx.AsyncClient) -> dict[str, float]:
    """The unlabelled samples of ``/metrics``."""
    response = await client.get("metrics")
    response.raise_for_status()
    samples = [line.split(" ") for line in response.text.splitlines() if line[:1] != "#" and "{" not in line]
    return {name: float(value) for name, value in samples}


@dataclass(frozen=True, slots=True)
class Growth:
    """Memory over time: at the first, at the last (medians over a tenth of the time), and by minute."""

    first_mib: float
    last_mib: float
    mib_per_minute: float


def growth(seconds: Sequence[float], rss: Sequence[int]) -> Growth | None:
    """Of a process that was looked at now and then; the slope is of least squares. None of fewer than ten looks."""
    if len(rss) < 10:
        return None
    mib = np.asarray(rss) / 2**20
    tenth = max(1, len(mib) // 10)
    slope = np.polyfit(np.asarray(seconds) / 60, mib, 1)[0]
    return Growth(float(np.median(mib[:tenth])), float(np.median(mib[-tenth:])), float(slope))
