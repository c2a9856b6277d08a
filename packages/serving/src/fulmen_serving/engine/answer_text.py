"""From the tokens of one answer to the text that may leave: decode, cut at stop strings, pass the guard (RAISE-4).

The order matters: the guard sees exactly what the client would, and the client gets only what the guard has returned.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fulmen_core.guard import Finding, Guard, OutputChunk, OutputStream
from fulmen_core.log_probabilities import TokenLogProbabilities
from fulmen_core.tokenizer import StreamDecoder
from fulmen_serving.engine.answer_logprobs import AnswerToken, LogprobsLedger
from fulmen_serving.engine.stop_strings import StopStrings
from fulmen_serving.guarding.together import feed_together

logger = logging.getLogger(__name__)

EndReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Text for the client, and the reason if the answer ends with it."""

    text: str
    end: EndReason | None = None
    logprobs: tuple[AnswerToken, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """Text that the tokens gave and that no guard has read; a stop string ends it if it is `stopped`."""

    text: str
    stopped: bool = False


class AnswerText:
    """The text of one answer. Feed it tokens until a `Delivery` has an `end`; after that it takes no more.

    Args:
        decoder: the tokenizer's stream decoder, fresh.
        stops: the request's stop strings, fresh.
        guard: the guard's output stream, fresh, or None to deliver unguarded.
        degraded: detectors that gave no result on the prompt already.
        opener: the guard that opened the stream, which may be fed by it beside others.
    """

    def __init__(
        self,
        decoder: StreamDecoder,
        stops: StopStrings,
        guard: OutputStream | None,
        degraded: tuple[str, ...] = (),
        opener: Guard | None = None,
    ) -> None:
        self._decoder, self._stops, self._guard = decoder, stops, guard
        self._opener = opener
        self.findings: list[Finding] = []
        self.category = ""
        self.degraded = dict.fromkeys(degraded)  # detectors that gave no result, in the order of their failures
        self._ledger: LogprobsLedger | None = None  # made when the first log probabilities come

    @property
    def guarded(self) -> bool:
        """Whether a guard reads the text."""
        return self._guard is not None

    @property
    def stop_string(self) -> str | None:
        """The stop string that has ended the text, if one has."""
        return self._stops.found

    def push(self, token: int, logprobs: TokenLogProbabilities | None = None) -> Delivery:
        """Take a token that belongs to the text (not the stop id that ended it)."""
        return self.deliver(self.write(token, logprobs))

    def write(self, token: int, logprobs: TokenLogProbabilities | None = None) -> Written:
        """Take a token as `push` does, and return its text: to be delivered, with that of others or not."""
        written = self._decoder.push(token)
        if logprobs is not None:
            self._ledger = self._ledger or LogprobsLedger()
            decoder = self._decoder
            self._ledger.token(logprobs, written, given_up=decoder.given_up, incomplete=decoder.incomplete)
        return Written(*self._stops.push(written))

    def awaits_guard(self, written: Written) -> tuple[Guard, OutputStream] | None:
        """Return the guard that may read the text beside that of others, and its stream; None if it cannot."""
        if self._opener is None or self._guard is None or written.stopped or not written.text:
            return None
        return self._opener, self._guard

    def deliver(self, written: Written, read: OutputChunk | Exception | None = None) -> Delivery:
        """Return what of the text may leave.

        Args:
            read: what the guard gave for it, if it has read it.
        """
        if written.stopped:
            return self._delivered(self._finish(written.text, "stop"))
        return self._delivered(self._guarded(written.text, None, read))

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

    def _guarded(
        self, text: str | None, reason: EndReason | None, read: OutputChunk | Exception | None = None
    ) -> Delivery:
        """Pass `text` through the guard, or end its stream if `text` is None. A guard that raises ends the answer."""
        if self._guard is None or text == "":
            return Delivery(text or "", reason)
        if read is None:
            try:
                read = self._guard.finish() if text is None else self._guard.feed(text)
            except Exception as error:
                read = error
        if isinstance(read, Exception):
            logger.error("the output guard failed; the answer ends here", exc_info=read)
            self.category = "guard_failure"
            return Delivery("", "content_filter")
        self.findings.extend(read.findings)
        self.degraded |= dict.fromkeys(read.degraded)
        if read.stop:
            self.category = read.category
        return Delivery(read.text, "content_filter" if read.stop else reason)


def read_together(texts: Sequence[tuple[AnswerText, Written]]) -> list[OutputChunk | Exception | None]:
    """Return what the guard gives for each answer's text, all read at once; None if it does not read one so."""
    read: list[OutputChunk | Exception | None] = [None] * len(texts)
    asked: dict[int, tuple[Guard, list[tuple[int, OutputStream]]]] = {}
    for place, (answer, written) in enumerate(texts):
        if (waiting := answer.awaits_guard(written)) is not None:
            guard, stream = waiting
            asked.setdefault(id(guard), (guard, []))[1].append((place, stream))
    for guard, streams in asked.values():
        chunks = feed_together(guard, [(stream, texts[place][1].text) for place, stream in streams])
        for (place, _), chunk in zip(streams, chunks, strict=True):
            read[place] = chunk
    return read
