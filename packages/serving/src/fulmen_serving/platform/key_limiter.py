"""The limits of one key in this process: requests and tokens in a minute, requests at once. Thread-safe."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from fulmen_serving.platform.api_key import ApiKey
from fulmen_serving.platform.token_bucket import TokenBucket
from fulmen_serving.refusal import Refusal


class KeyLimiter:
    """What a key has left.

    Tokens of a prompt are taken before it is admitted, those of the answer when it has ended, for nobody knows them
    before: an answer is never cut off, but what it overdraws has to flow in again before the next one.
    """

    def __init__(self, key: ApiKey, clock: Callable[[], float]) -> None:
        self.limits = limits_of(key)
        requests, tokens, self._max_concurrent = self.limits
        self._requests = TokenBucket(requests, clock) if requests is not None else None
        self._tokens = TokenBucket(tokens, clock) if tokens is not None else None
        self._running = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        """A request begins; `leave` must follow.

        Raises:
            Refusal: 429, there were too many in the last minute, or too many run. Then `leave` must not follow.
        """
        with self._lock:
            if self._max_concurrent is not None and self._running >= self._max_concurrent:
                raise _too_much(f"This API key may have {self._max_concurrent} requests at once, and they run", 1)
            if self._requests is not None:
                if seconds := self._requests.wait_for(1):
                    raise _too_much(f"This API key may send {self._requests.per_minute} requests per minute", seconds)
                self._requests.take(1)
            self._running += 1

    def leave(self) -> None:
        """A request ended."""
        with self._lock:
            self._running -= 1

    def take_prompt(self, tokens: int) -> None:
        """A prompt is to be read.

        Raises:
            Refusal: 429, there were too many tokens in the last minute.
        """
        with self._lock:
            if self._tokens is not None:
                if seconds := self._tokens.wait_for(tokens):
                    raise _too_much(
                        f"This API key may use {self._tokens.per_minute} tokens per minute, {self._tokens.remaining} "
                        f"are left and the prompt has {tokens}",
                        seconds,
                    )
                self._tokens.take(tokens)

    def correct(self, tokens: int) -> None:
        """So many tokens more than were taken were used; a negative number gives back."""
        with self._lock:
            if self._tokens is not None:
                self._tokens.take(tokens)

    def headers(self) -> dict[str, str]:
        """Return the headers that tell a client where it stands, as OpenAI names them; none where nothing is limited.

        Source: https://platform.openai.com/docs/guides/rate-limits (rate limits in headers).
        """
        told: dict[str, str] = {}
        with self._lock:
            for what, bucket in (("requests", self._requests), ("tokens", self._tokens)):
                if bucket is not None:
                    told[f"x-ratelimit-limit-{what}"] = str(bucket.per_minute)
                    told[f"x-ratelimit-remaining-{what}"] = str(bucket.remaining)
                    told[f"x-ratelimit-reset-{what}"] = _duration(bucket.full_in)
        return told


def limits_of(key: ApiKey) -> tuple[int | None, int | None, int | None]:
    """Return what decides about a limiter: where it changes, a new one is needed."""
    return key.requests_per_minute, key.tokens_per_minute, key.max_concurrent


def _too_much(message: str, seconds: float) -> Refusal:
    return Refusal(429, message, code="rate_limit_exceeded", retry_after=max(1, math.ceil(seconds)))


def _duration(seconds: float) -> str:
    """As OpenAI writes them: 0s, 120ms, 1.5s, 6m0s."""
    if 0 < seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
