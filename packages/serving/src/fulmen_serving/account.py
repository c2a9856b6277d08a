"""Who pays for a request: set by whoever knows the caller, asked by the service, which counts tokens.

A context variable, so that no route can forget to pass it on: what a route asks of the service is accounted for.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Protocol


class Charge(Protocol):
    """The tokens of one request. Exactly one of the two is called, once, from any thread."""

    def settle(self, prompt_tokens: int, completion_tokens: int) -> None:
        """The request ended, however it ended, and this was computed for it."""

    def cancel(self) -> None:
        """The request was never admitted: nothing was computed."""


class Account(Protocol):
    """A caller with limits."""

    def admit(self, model: str, prompt_tokens: int) -> Charge:
        """Let a request with a prompt of so many tokens begin.

        Raises:
            Refusal: 429, a limit is reached.
        """


#: The caller of the request that this task serves; None where nobody is charged.
current_account: ContextVar[Account | None] = ContextVar("current_account", default=None)


class ChoiceTally:
    """Adds up the answers to one request and settles its charge when the last has ended. Thread-safe.

    The prompt counts once however many answers it has, as in OpenAI's usage.
    """

    def __init__(self, charge: Charge, choices: int) -> None:
        self._charge, self._left = charge, choices
        self._prompt = self._completion = 0
        self._lock = threading.Lock()

    def __call__(self, prompt_tokens: int, completion_tokens: int) -> None:
        """One answer ended: so much of the prompt was read, so many tokens were generated."""
        with self._lock:
            self._prompt = max(self._prompt, prompt_tokens)
            self._completion += completion_tokens
            self._left -= 1
            last = self._left == 0
        if last:
            self._charge.settle(self._prompt, self._completion)
