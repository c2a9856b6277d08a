"""A rate limit as a bucket that fills evenly and may be overdrawn by what was not known beforehand."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """Holds at most one minute's worth, full at first. Not thread-safe.

    Args:
        per_minute: how much flows in within a minute, at least 1.
        clock: seconds that never go backwards.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute, self._clock = per_minute, clock
        self._level, self._seen = float(per_minute), clock()

    def wait_for(self, amount: float) -> float:
        """Return the seconds until `amount` can be taken, 0 if now. What exceeds the bucket waits until it is full."""
        missing = min(amount, self.per_minute) - self._fill()
        # a millionth: what flowed in is rounded, and a caller who waited as told must not be sent away again
        return missing * 60 / self.per_minute if missing > 1e-6 else 0.0

    def take(self, amount: float) -> None:
        """Take `amount`, into debt if need be; a negative one is given back."""
        self._level = min(self._fill() - amount, float(self.per_minute))

    @property
    def remaining(self) -> int:
        """How much can be taken now."""
        return max(0, int(self._fill() + 1e-6))

    @property
    def full_in(self) -> float:
        """Seconds until the bucket is full."""
        return (self.per_minute - self._fill()) * 60 / self.per_minute

    def _fill(self) -> float:
        now = self._clock()
        self._level = min(float(self.per_minute), self._level + (now - self._seen) * self.per_minute / 60)
        self._seen = now
        return self._level
