"""The engine: a host runs the model, a thread turns its tokens into guarded text, any thread may submit and abort.

A request has one owner, the host of the model. Everybody else sends it commands, which it applies between two steps, so
that an abort frees its slot within one step. Ending twice is harmless.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fulmen_core.guard import Finding, OutputChunk
from fulmen_core.runner import EngineLimits
from fulmen_serving.engine.admission import Admission, AdmissionLimits
from fulmen_serving.engine.answer_logprobs import AnswerToken
from fulmen_serving.engine.answer_text import AnswerText, Delivery, EndReason, Written, read_together
from fulmen_serving.engine.core import EngineCore, TokenEvent
from fulmen_serving.engine.model_thread import ModelThread
from fulmen_serving.engine.report import Condition, Ended, ModelHost, StepReport
from fulmen_serving.engine.sequence import Decision, GenerationRequest
from fulmen_serving.metrics import ServingMetrics

logger = logging.getLogger(__name__)

#: The share of the time that the guard may take by reading answers while they go on, unless text would wait too long.
GUARD_SHARE = 0.03


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of an answer: text, or the log probabilities of tokens that it completes, or both."""

    text: str
    logprobs: tuple[AnswerToken, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """An answer is complete. `completion_tokens` counts the stop id that ended it; a stop string that ended it is
    `stop_string`. Seconds are from the submission. `reused_tokens` of its prompt were found computed; `decisions` say
    why it waited, what it found, what it lost. `degraded` are detectors of the guard that gave no result.
    """

    reason: EndReason
    completion_tokens: int
    findings: tuple[Finding, ...] = ()
    category: str = ""
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    stop_string: str | None = None
    reused_tokens: int = 0
    decisions: tuple[Decision, ...] = ()
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerFailure:
    """An answer cannot be completed; what was delivered of it stands."""

    message: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """A prompt was read, and this is the final hidden state of its last token: float32 ``[D]``."""

    vector_D: NDArray[np.float32]


AnswerEvent = TextDelta | AnswerEnd | AnswerFailure | Embedded
#: Called by the engine's output thread with a request id and its next event. Must not block.
Sink = Callable[[str, AnswerEvent], None]


#: Called once for each answer, from any thread, when it has ended in whatever way: the tokens of its prompt that were
#: computed, and those generated. Must not block.
Tally = Callable[[int, int], None]


class EngineStopped(Exception):
    """The engine takes no requests: it drains, is closed, or lost its model for good."""


@dataclass(slots=True)
class _Job:
    request: GenerationRequest
    text: AnswerText
    sink: Sink
    tally: Tally | None = None
    ended: Ended | None = None  # once the model has let go of it
    submitted: float = field(default_factory=time.perf_counter)
    got_slot: float = 0.0
    reused: int = 0
    decisions: tuple[Decision, ...] = ()
    first_token: float = 0.0
    tokens: int = 0
    delivered: bool = False  # whether text of it has left

    def settle(self, *, aborted: bool = False) -> None:
        """Tell what was computed. `tokens` of it have become text; of an aborted answer more may have been computed."""
        if self.tally is not None:
            known = self.ended or Ended("", len(self.request.prompt_ids) if self.tokens else 0, self.tokens)
            self.tally(known.prompt_tokens, known.generated if aborted else self.tokens)


@dataclass(slots=True)
class _Piece:
    """What was given to an answer since its text was last delivered: a token, or several."""

    job: _Job
    text: str = ""
    stopped: bool = False
    end: Literal["stop", "length", "embedded", "error"] | None = None
    failed: bool = False

    @property
    def written(self) -> Written:
        """Its text."""
        return Written(self.text, self.stopped)

    @property
    def may_wait(self) -> bool:
        """Whether the guard may read it later, with what follows: neither the first text of an answer nor its end."""
        return self.job.delivered and self.job.text.guarded and not (self.stopped or self.failed or self.end)


class Engine:
    """Runs requests over a model until it is closed.

    Args:
        host: where the model runs, loaded and not started; the engine closes it.
        limits: how much may wait.
        metrics: where to count.
        guard_wait: seconds that text of an answer may wait for the guard, which reads what several steps gave at once
            so as to take no more than `GUARD_SHARE` of the time. 0: it reads after every step.
    """

    def __init__(
        self, host: ModelHost, limits: AdmissionLimits, metrics: ServingMetrics, guard_wait: float = 0.0
    ) -> None:
        self.host = host
        self.admission = Admission(limits, host.limits)
        self.metrics = metrics
        self._guard_wait = guard_wait
        self.fault = ""  # why the model is lost for good
        self.draining = False
        self._jobs: dict[str, _Job] = {}
        self._leaving: dict[str, _Job] = {}  # aborted, and not yet reported as ended
        self._lock = threading.Lock()
        self._model_ended = False
        self._tokens: queue.SimpleQueue[list[TokenEvent] | None] = queue.SimpleQueue()
        self._output = threading.Thread(target=self._run_output, name="fulmen-output", daemon=True)
        metrics.running.set_function(lambda: self.admission.live - self.admission.queued_requests)
        metrics.queued.set_function(lambda: self.admission.queued_requests)
        metrics.queued_tokens.set_function(lambda: self.admission.queued_tokens)

    @property
    def limits(self) -> EngineLimits:
        """The runner's."""
        return self.host.limits

    @property
    def core(self) -> EngineCore:
        """The core, if it runs in this process; an `AttributeError` otherwise."""
        if not isinstance(self.host, ModelThread):
            raise AttributeError("the engine's core runs in another process")
        return self.host.core

    @property
    def condition(self) -> Condition:
        """How the model stands."""
        return self.host.condition

    @property
    def alive(self) -> bool:
        """Whether the model and the output thread run: false before `start`, after `close`, and once either is lost."""
        return not self._model_ended and self._output.is_alive()

    def start(self) -> None:
        """Start the model and the output thread. Once."""
        self._output.start()
        self.host.start(self._take, self._stopped)

    def submit(
        self, answers: Sequence[tuple[GenerationRequest, AnswerText]], sink: Sink, tally: Tally | None = None
    ) -> None:
        """Admit all of `answers` or none. Events arrive at `sink` until each had one that is no `TextDelta`, and
        `tally` hears of each once, also of those that are aborted.

        Raises:
            EngineFull: there is no room now.
            EngineStopped: the engine takes no requests.
        """
        with self._lock:  # so that the model cannot be lost between the question and the answer
            if self.draining:
                raise EngineStopped(self.fault or "the server is stopping")
            self.admission.enter([(request.request_id, len(request.prompt_ids)) for request, _ in answers])
            for request, text in answers:
                self._jobs[request.request_id] = _Job(request, text, sink, tally)
            for request, _ in answers:
                self.host.add(request)
        self.metrics.prompt_tokens.inc(sum(len(request.prompt_ids) for request, _ in answers))

    def abort(self, request_id: str) -> None:
        """End a request: no event follows (but one that is under way), and its slot is free before the next step."""
        with self._lock:
            if (job := self._jobs.pop(request_id, None)) is None:
                return
            ended = self._model_ended or job.ended is not None
            if not ended:
                self._leaving[request_id] = job
        self.metrics.requests.labels("abort").inc()
        if ended:
            job.settle(aborted=True)
        else:
            self.host.abort(request_id)

    def begin_drain(self) -> None:
        """Take no new requests; those admitted go on to their end."""
        self.draining = True

    def close(self) -> None:
        """Stop now: fail what is live, end the threads, close the model. Idempotent."""
        self.draining = True
        self.host.close()
        if self._output.is_alive():
            self._output.join()

    # -- the host's threads -------------------------------------------------------------------------------------------

    def _take(self, report: StepReport) -> None:
        """Count what a step did, and leave its tokens to the output thread."""
        now = time.perf_counter()
        for admitted in report.admitted:
            self.admission.got_slot(admitted.request_id)
            if (job := self._jobs.get(admitted.request_id)) is not None:
                if not job.got_slot:
                    job.got_slot, job.reused = now - admitted.seconds_ago, admitted.reused
                job.decisions = admitted.decisions
        for request_id in report.requeued:
            if (job := self._jobs.get(request_id)) is not None:
                self.admission.lost_slot(request_id, len(job.request.prompt_ids))
        for ended in report.ended:
            self.admission.ended(ended.request_id, ended.slot_seconds)
            with self._lock:
                leaving = self._leaving.pop(ended.request_id, None)
                if (job := leaving or self._jobs.get(ended.request_id)) is not None:
                    job.ended = ended
            if leaving is not None:
                leaving.settle(aborted=True)
        if report.events:
            self._tokens.put(report.events)
        if report.lost:
            self.metrics.model_restarts.inc()
        if report.cycle_seconds:
            self.metrics.step_tokens.inc(report.computed_tokens)
            self.metrics.reused_tokens.inc(report.reused_tokens)
            self.metrics.guessed_tokens.inc(report.guessed_tokens)
            self.metrics.confirmed_tokens.inc(report.confirmed_tokens)
            self.metrics.preemptions.inc(report.preempted)
            self.metrics.cache = report.cache
            self.metrics.generated_tokens.inc(sum(event.token is not None for event in report.events))
            self.metrics.step_seconds.observe(report.model_seconds)
            self.metrics.busy.add(report.model_seconds, report.cycle_seconds)

    def _stopped(self, fault: str) -> None:
        with self._lock:
            self.fault = fault
            self.draining = self._model_ended = True
            live = list(self._jobs)
            leaving, self._leaving = list(self._leaving.values()), {}
        for job in leaving:
            job.settle(aborted=True)
        message = fault or "the server is stopping"
        self._tokens.put([TokenEvent(request_id, None, "error", message) for request_id in live])
        self._tokens.put(None)

    # -- the output thread --------------------------------------------------------------------------------------------

    def _run_output(self) -> None:
        waiting: dict[str, _Piece] = {}
        due = 0.0  # when the guard may read again what may wait
        while (events := self._next_events(due if waiting else None)) is not None:
            for event in events:
                job = self._jobs.get(event.request_id)
                if job is None:
                    continue  # aborted, or ended by a stop string or the guard while this token was computed
                if event.token is None or event.vector is not None:
                    if (said := waiting.pop(event.request_id, None)) is not None:
                        self._deliver([said])
                    self._safely(job, event.end, self._answer_untold, job, event)
                    continue
                piece = waiting.setdefault(event.request_id, _Piece(job))
                if not piece.failed and not piece.stopped:
                    piece.end = event.end
                    piece.failed = not self._safely(job, event.end, self._write, piece, event)
            began = time.perf_counter()
            later = {name: piece for name, piece in waiting.items() if piece.may_wait} if began < due else {}
            self._deliver([piece for name, piece in waiting.items() if name not in later])
            if began >= due:
                ended = time.perf_counter()
                due = ended + min(self._guard_wait, (ended - began) / GUARD_SHARE)
            waiting = later

    def _next_events(self, due: float | None) -> list[TokenEvent] | None:
        """Return what the next step gave, or nothing if `due` comes first."""
        if due is None:
            return self._tokens.get()
        try:
            return self._tokens.get(timeout=max(0.0, due - time.perf_counter()))
        except queue.Empty:
            return []

    def _safely(self, job: _Job, end: object, action: Callable[..., None], *arguments: Any) -> bool:
        """Do it, and return whether it went well: the text of one answer must not cost the others theirs."""
        try:
            action(*arguments)
        except Exception as error:
            logger.exception("request %s: its text failed", job.request.request_id)
            self._fail(job, f"the answer's text failed: {type(error).__name__}: {error}", abort=not end)
            return False
        return True

    def _answer_untold(self, job: _Job, event: TokenEvent) -> None:
        """What ends a request without text."""
        if event.vector is not None:
            self._embedded(job, event.vector)
        else:
            self._fail(job, event.message, abort=False)

    def _write(self, piece: _Piece, event: TokenEvent) -> None:
        """Add a token to what an answer was given."""
        job, token = piece.job, event.token
        job.tokens += 1
        if job.tokens == 1:
            job.first_token = time.perf_counter()
            self.metrics.first_token_seconds.observe(job.first_token - job.submitted)
        if token is not None and token not in job.request.stop_ids:
            written = job.text.write(token, event.logprobs)
            piece.text += written.text
            piece.stopped = written.stopped

    def _deliver(self, pieces: Sequence[_Piece]) -> None:
        """Have the guard read what was given to these answers, and deliver what may leave."""
        pieces = [piece for piece in pieces if piece.job.request.request_id in self._jobs]  # others failed or left
        read_of = read_together([(piece.job.text, piece.written) for piece in pieces])
        for piece, read in zip(pieces, read_of, strict=True):
            self._safely(piece.job, piece.end, self._deliver_one, piece, read)

    def _deliver_one(self, piece: _Piece, read: OutputChunk | Exception | None) -> None:
        job = piece.job
        delivery = job.text.deliver(piece.written, read)
        if delivery.end is None and (piece.end == "stop" or piece.end == "length"):
            rest = job.text.finish(piece.end)
            delivery = Delivery(delivery.text + rest.text, rest.end, delivery.logprobs + rest.logprobs)
        if delivery.text or delivery.logprobs:
            job.delivered |= bool(delivery.text)
            self._emit(job, TextDelta(delivery.text, delivery.logprobs))
        if delivery.end and self._jobs.pop(job.request.request_id, None) is not None:
            refused = delivery.end == "content_filter"
            if refused or not piece.end:  # text ended it, tokens did not: free its slot; what is refused is not kept
                self.host.abort(job.request.request_id, forget=refused)
            job.settle()  # before the caller knows of the end: what was answered is metered
            self._emit(job, self._end(job, delivery.end))

    def _end(self, job: _Job, reason: EndReason) -> AnswerEnd:
        seconds = time.perf_counter() - job.submitted
        self.metrics.requests.labels(reason).inc()
        self.metrics.request_seconds.observe(seconds)
        return AnswerEnd(
            reason,
            job.tokens,
            tuple(job.text.findings),
            job.text.category,
            queue_seconds=max(0.0, job.got_slot - job.submitted),
            first_token_seconds=job.first_token - job.submitted,
            seconds=seconds,
            stop_string=job.text.stop_string,
            reused_tokens=job.reused,
            decisions=job.decisions,
            degraded=tuple(job.text.degraded),
        )

    def _embedded(self, job: _Job, vector_D: NDArray[np.float32]) -> None:
        if self._jobs.pop(job.request.request_id, None) is not None:
            self.metrics.requests.labels("embedded").inc()
            self.metrics.request_seconds.observe(time.perf_counter() - job.submitted)
            job.settle()
            self._emit(job, Embedded(vector_D))

    def _fail(self, job: _Job, message: str, *, abort: bool) -> None:
        if self._jobs.pop(job.request.request_id, None) is not None:
            if abort:
                self.host.abort(job.request.request_id)
            self.metrics.requests.labels("error").inc()
            job.settle()
            self._emit(job, AnswerFailure(message))

    def _emit(self, job: _Job, event: AnswerEvent) -> None:
        try:
            job.sink(job.request.request_id, event)
        except RuntimeError:  # the submitter's event loop is closed: nobody reads this answer
            self.abort(job.request.request_id)
