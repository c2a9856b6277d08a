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

    @property
    def salt(self) -> str:
        """What is computed for callers of the same salt may be shared among them, and with nobody else."""
        ...

    def admit(self, model: str, prompt_tokens: int) -> Charge:
        """Let a request with a prompt of so many tokens begin.

        Raises:
            Refusal: 429, a limit is reached.
        """


#: The caller of the request that this task serves; None where nobody is charged.
current_account: ContextVar[Account | None] = ContextVar("current_account", default=None)


def current_salt() -> str:
    """The salt of the caller of the request that this task serves; where nobody is charged, all share one."""
    account = current_account.get()
    return "" if account is None else account.salt


class TextTally:
    """Adds up the texts of one request, which come one after the other, and settles its charge. Thread-safe.

    What was begun is settled when `close` was called and the last of it has ended.
    """

    def __init__(self, charge: Charge) -> None:
        self._charge, self._open, self._tokens = charge, 1, 0  # one of them is closed by `close`
        self._lock = threading.Lock()

    def begin(self, texts: int) -> None:
        """So many more were submitted."""
        with self._lock:
            self._open += texts

    def __call__(self, prompt_tokens: int, completion_tokens: int) -> None:
        """One text ended: so many tokens of it were read."""
        self._end(1, prompt_tokens + completion_tokens)

    def withdraw(self, texts: int) -> None:
        """So many were not submitted after all."""
        self._end(texts, 0)

    def close(self) -> None:
        """No text follows. Once."""
        self._end(1, 0)

    def _end(self, texts: int, tokens: int) -> None:
        with self._lock:
            self._tokens += tokens
            self._open -= texts
            last = self._open == 0
        if last:
            self._charge.settle(self._tokens, 0)


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
