"""From the tokens of one answer to the text that may leave: decode, cut at stop strings, pass the guard (RAISE-4).

The order matters: the guard sees exactly what the client would, and the client gets only what the guard has returned.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

from fulmen_core.guard import Finding, OutputStream
from fulmen_core.log_probabilities import TokenLogProbabilities
from fulmen_core.tokenizer import StreamDecoder
from fulmen_serving.engine.answer_logprobs import AnswerToken, LogprobsLedger
from fulmen_serving.engine.stop_strings import StopStrings

logger = logging.getLogger(__name__)

EndReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Text for the client, and the reason if the answer ends with it."""

    text: str
    end: EndReason | None = None
    logprobs: tuple[AnswerToken, ...] = ()


class AnswerText:
    """The text of one answer. Feed it tokens until a `Delivery` has an `end`; after that it takes no more.

    Args:
        decoder: the tokenizer's stream decoder, fresh.
        stops: the request's stop strings, fresh.
        guard: the guard's output stream, fresh, or None to deliver unguarded.
        degraded: detectors that gave no result on the prompt already.
    """

    def __init__(
        self, decoder: StreamDecoder, stops: StopStrings, guard: OutputStream | None, degraded: tuple[str, ...] = ()
    ) -> None:
        self._decoder, self._stops, self._guard = decoder, stops, guard
        self.findings: list[Finding] = []
        self.category = ""
        self.degraded = dict.fromkeys(degraded)  # detectors that gave no result, in the order of their failures
        self._ledger: LogprobsLedger | None = None  # made when the first log probabilities come

    @property
    def stop_string(self) -> str | None:
        """The stop string that has ended the text, if one has."""
        return self._stops.found

    def push(self, token: int, logprobs: TokenLogProbabilities | None = None) -> Delivery:
        """Take a token that belongs to the text (not the stop id that ended it)."""
        written = self._decoder.push(token)
        if logprobs is not None:
            self._ledger = self._ledger or LogprobsLedger()
            decoder = self._decoder
            self._ledger.token(logprobs, written, given_up=decoder.given_up, incomplete=decoder.incomplete)
        text, stopped = self._stops.push(written)
        return self._delivered(self._finish(text, "stop") if stopped else self._guarded(text, None))

    def finish(self, reason: Literal["stop", "length"]) -> Delivery:
        """The tokens ended for `reason`: deliver what was held back."""
        written = self._decoder.finish()
        if self._ledger is not None:
            self._ledger.write(written)
        text, stopped = self._stops.push(written)
        rest = text if stopped else text + self._stops.finish()
        return self._delivered(self._finish(rest, "stop" if stopped else reason))

    def _delivered(self, delivery: Delivery) -> Delivery:
        if self._ledger is None:
            return delivery
        return replace(delivery, logprobs=self._ledger.deliver(delivery.text))

    def _finish(self, text: str, reason: EndReason) -> Delivery:
        last = self._guarded(text, None)
        if last.end or self._guard is None:
            return last if last.end else Delivery(last.text, reason)
        rest = self._guarded(None, reason)
        return Delivery(last.text + rest.text, rest.end)

    def _guarded(self, text: str | None, reason: EndReason | None) -> Delivery:
        """Pass `text` through the guard, or end its stream if `text` is None. A guard that raises ends the answer."""
        if self._guard is None or text == "":
            return Delivery(text or "", reason)
        try:
            chunk = self._guard.finish() if text is None else self._guard.feed(text)
        except Exception:
            logger.exception("the output guard failed; the answer ends here")
            self.category = "guard_failure"
            return Delivery("", "content_filter")
        self.findings.extend(chunk.findings)
        self.degraded |= dict.fromkeys(chunk.degraded)
        if chunk.stop:
            self.category = chunk.category
        return Delivery(chunk.text, "content_filter" if chunk.stop else reason)
