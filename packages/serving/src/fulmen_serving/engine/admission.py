"""Bounded admission, by requests and by queued prompt tokens. What does not fit is refused with a time to come back."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from fulmen_core.errors import UserError
from fulmen_core.runner import EngineLimits


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How much may wait.

    Attributes:
        max_waiting: live requests beyond the runner's slots.
        max_queued_tokens: prompt tokens of all requests that have no slot yet.
    """

    max_waiting: int = 64
    max_queued_tokens: int = 65_536


class EngineFull(Exception):
    """There is no room for the request now. `retry_after` is in seconds, at least 1."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Admission:
    """Counts live requests and queued prompt tokens. Thread-safe.

    Raises:
        UserError: a prompt that fits the context could never be admitted under `limits`.
    """

    def __init__(self, limits: AdmissionLimits, engine: EngineLimits) -> None:
        if limits.max_waiting < 0:
            raise UserError(f"max_waiting {limits.max_waiting} is negative")
        if limits.max_queued_tokens < engine.max_context:
            raise UserError(
                f"max_queued_tokens {limits.max_queued_tokens} is less than the context of {engine.max_context} tokens",
                remedy="raise it, or the longest prompts could never be admitted",
            )
        self.limits, self._slots = limits, engine.max_sequences
        self._lock = threading.Lock()
        self._live = 0
        self._queued: dict[str, int] = {}  # request id -> prompt tokens, while it has no slot
        self._seconds_per_request = 1.0  # moving average of the time from slot to end

    @property
    def live(self) -> int:
        """Requests admitted and not ended."""
        return self._live

    @property
    def queued_requests(self) -> int:
        """Requests without a slot."""
        return len(self._queued)

    @property
    def queued_tokens(self) -> int:
        """Prompt tokens of the requests without a slot."""
        with self._lock:
            return sum(self._queued.values())

    def refuse_if_full(self, more: int) -> None:
        """Raise `EngineFull` if `more` requests have no place now. Cheap, and settles nothing: `enter` decides."""
        with self._lock:
            self._check_requests(more)

    def enter(self, requests: Sequence[tuple[str, int]]) -> None:
        """Admit all of `requests`, pairs of id and prompt tokens, or none.

        Raises:
            EngineFull: they do not fit now.
        """
        tokens = sum(count for _, count in requests)
        with self._lock:
            self._check_requests(len(requests))
            queued = sum(self._queued.values())
            # one call (n choices of one long prompt) may exceed the limit when nothing else waits; else it never could
            if queued and queued + tokens > self.limits.max_queued_tokens:
                raise EngineFull(
                    f"The server is full: {queued} prompt tokens wait, and {self.limits.max_queued_tokens} may",
                    self._retry_after(),
                )
            self._live += len(requests)
            self._queued.update(requests)

    def got_slot(self, request_id: str) -> None:
        """The request left the queue."""
        with self._lock:
            self._queued.pop(request_id, None)

    def lost_slot(self, request_id: str, prompt_tokens: int) -> None:
        """The request waits again: the model was lost. It stays admitted, whatever the limits."""
        with self._lock:
            self._queued[request_id] = prompt_tokens

    def ended(self, request_id: str, slot_seconds: float | None = None) -> None:
        """The request ended, after `slot_seconds` in a slot if it had one."""
        with self._lock:
            self._queued.pop(request_id, None)
            self._live -= 1
            if slot_seconds is not None:
                self._seconds_per_request += 0.1 * (slot_seconds - self._seconds_per_request)

    def _check_requests(self, more: int) -> None:
        if self._live + more > self._slots + self.limits.max_waiting:
            raise EngineFull(
                f"The server is full: {self._slots} requests run at once and {self.limits.max_waiting} may wait",
                self._retry_after(),
            )

    def _retry_after(self) -> int:
        rounds = (len(self._queued) + 1) / self._slots
        return min(60, max(1, math.ceil(rounds * self._seconds_per_request)))
