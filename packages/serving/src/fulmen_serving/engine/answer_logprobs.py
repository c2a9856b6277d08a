"""Log probabilities that leave with the text they belong to, and never before it: they spell the text too.

A token's entry is held until all of the token's text has passed stop strings and guard. Once the guard has delivered
anything but what the model wrote, no entry leaves any more: it would tell what the guard took out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from fulmen_core.log_probabilities import TokenLogProbabilities


@dataclass(frozen=True, slots=True)
class AnswerToken:
    """A token of an answer with its log probabilities. `start` is where its text starts, in characters."""

    start: int
    logprobs: TokenLogProbabilities


class LogprobsLedger:
    """The entries of one answer that have not left yet."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, AnswerToken]] = deque()  # with where the token's text ends
        self._written = self._delivered = 0
        self._undelivered = ""
        self._true = True  # what was delivered is what the model wrote

    def token(self, logprobs: TokenLogProbabilities, text: str, *, given_up: int, incomplete: bool) -> None:
        """The model took a token, which completed `text`: `given_up` characters of it stand for tokens before.

        `incomplete` says that the token ends within a character.
        """
        entry = AnswerToken(self._written + given_up, logprobs)
        self.write(text)
        self._waiting.append((self._written + incomplete, entry))

    def write(self, text: str) -> None:
        """The model's tokens completed `text`."""
        self._undelivered += text
        self._written += len(text)

    def deliver(self, text: str) -> tuple[AnswerToken, ...]:
        """`text` leaves; return the entries that leave with it."""
        self._true = self._true and self._undelivered.startswith(text)
        self._undelivered = self._undelivered[len(text) :]
        self._delivered += len(text)
        released = []
        while self._true and self._waiting and self._waiting[0][0] <= self._delivered:
            released.append(self._waiting.popleft()[1])
        return tuple(released)
