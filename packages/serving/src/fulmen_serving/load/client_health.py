"""Whether the client itself is the bottleneck: how late its event loop runs, and how much of a core it takes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

#: A client later than this in one of a hundred looks is said to disturb what it measures.
LAG_LIMIT_MS = 25.0
CPU_LIMIT = 0.9


class ClientHealth:
    """Watches the running event loop from `start` to `stop`: asks to be woken every 10 ms and notes how late it is."""

    def __init__(self, interval: float = 0.01) -> None:
        self._interval = interval
        self._lags: list[float] = []
        self._task: asyncio.Task[None] | None = None
        self._begin = self._cpu = 0.0

    def start(self) -> None:
        """Begin; needs a running loop."""
        self._begin, self._cpu = time.perf_counter(), time.process_time()
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(self._interval)
            self._lags.append(time.perf_counter() - asked - self._interval)

    def stop(self) -> dict[str, Any]:
        """End, and return lags in ms, the share of one core, and whether the client was a bottleneck."""
        if self._task is None:
            raise RuntimeError("stop() before start()")
        self._task.cancel()
        share = (time.process_time() - self._cpu) / max(time.perf_counter() - self._begin, 1e-9)
        lags = np.asarray(self._lags or [0.0]) * 1000
        p99 = float(np.percentile(lags, 99))
        return {
            "loop_lag_p50_ms": float(np.percentile(lags, 50)),
            "loop_lag_p99_ms": p99,
            "loop_lag_max_ms": float(lags.max()),
            "cpu_share": share,
            "bottleneck": bool(p99 > LAG_LIMIT_MS or share > CPU_LIMIT),
        }
