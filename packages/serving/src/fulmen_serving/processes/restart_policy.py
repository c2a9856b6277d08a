"""How often a process that dies is started again, and how long after: at once, then later and later, then never."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence


class RestartPolicy:
    """Counts crashes.

    Args:
        crashes: this many within `window` are too many.
        window: in seconds.
        delays: seconds before the first restart, the second and so on, counting the crashes of the window; the last
            one stands for all that follow.
        clock: seconds.
    """

    def __init__(
        self,
        crashes: int = 10,
        window: float = 300.0,
        delays: Sequence[float] = (0.0, 0.5, 1.0, 2.0, 5.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.crashes, self.window = crashes, window
        self._delays, self._clock = tuple(delays), clock
        self._times: deque[float] = deque()

    def crashed(self) -> float | None:
        """A process died: return the seconds to wait before the next is started, or None to give up."""
        now = self._clock()
        self._times.append(now)
        while self._times[0] < now - self.window:
            self._times.popleft()
        if len(self._times) >= self.crashes:
            return None
        return self._delays[min(len(self._times), len(self._delays)) - 1]
