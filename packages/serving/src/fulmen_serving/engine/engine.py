"""The engine: one thread runs the model, one turns its tokens into guarded text, any thread may submit and abort.

A request has one owner, the model thread. Everybody else sends commands through the inbox, which it applies between two
steps, so that an abort frees its slot within one step. Ending twice is harmless.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fulmen_core.guard import Finding
from fulmen_core.runner import Runner
from fulmen_core.token_constraint import OpenConstraint
from fulmen_serving.engine.admission import Admission, AdmissionLimits
from fulmen_serving.engine.answer_text import AnswerText, Delivery, EndReason
from fulmen_serving.engine.core import EngineCore, StepOutcome, TokenEvent
from fulmen_serving.engine.sequence import GenerationRequest, SequenceState
from fulmen_serving.metrics import ServingMetrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of an answer, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """An answer is complete. `completion_tokens` counts the stop id that ended it. Seconds are from the submission."""

    reason: EndReason
    completion_tokens: int
    findings: tuple[Finding, ...] = ()
    category: str = ""
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AnswerFailure:
    """An answer cannot be completed; what was delivered of it stands."""

    message: str


AnswerEvent = TextDelta | AnswerEnd | AnswerFailure
#: Called by the engine's output thread with a request id and its next event. Must not block.
Sink = Callable[[str, AnswerEvent], None]


#: Called once for each answer, from any thread, when it has ended in whatever way: the tokens of its prompt that were
#: computed, and those generated. Must not block.
Tally = Callable[[int, int], None]


class EngineStopped(Exception):
    """The engine takes no requests: it drains, is closed, or its model thread died."""


@dataclass(slots=True)
class _Job:
    request: GenerationRequest
    text: AnswerText
    sink: Sink
    tally: Tally | None = None
    state: SequenceState | None = None  # written by the model thread
    submitted: float = field(default_factory=time.perf_counter)
    got_slot: float = 0.0
    first_token: float = 0.0
    tokens: int = 0

    def settle(self, *, aborted: bool = False) -> None:
        """Tell what was computed. `tokens` of it have become text; of an aborted answer more may have been computed."""
        if self.tally is not None:
            prompt = 0 if self.state is None else min(self.state.computed, len(self.request.prompt_ids))
            generated = 0 if self.state is None else self.state.generated
            self.tally(prompt, generated if aborted else self.tokens)


@dataclass(frozen=True, slots=True)
class _Abort:
    job: _Job


class Engine:
    """Runs requests over a runner until it is closed.

    Args:
        runner: a loaded model; the engine closes it.
        limits: how much may wait.
        metrics: where to count.
        open_constraint: reads the grammars of requests; None if none has one.
    """

    def __init__(
        self,
        runner: Runner,
        limits: AdmissionLimits,
        metrics: ServingMetrics,
        open_constraint: OpenConstraint | None = None,
    ) -> None:
        self.core = EngineCore(runner, open_constraint)
        self.admission = Admission(limits, runner.limits)
        self.metrics = metrics
        self.fault = ""  # why the model thread died
        self.draining = False
        self._jobs: dict[str, _Job] = {}
        self._wake = threading.Condition()
        self._inbox: list[_Job | _Abort | str] = []  # in order: a job to add or to abort, or the id of one to free
        self._closing = self._model_ended = False
        self._tokens: queue.SimpleQueue[list[TokenEvent] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run_model, name="fulmen-model", daemon=True),
            threading.Thread(target=self._run_output, name="fulmen-output", daemon=True),
        ]
        metrics.running.set_function(lambda: self.admission.live - self.admission.queued_requests)
        metrics.queued.set_function(lambda: self.admission.queued_requests)
        metrics.queued_tokens.set_function(lambda: self.admission.queued_tokens)

    def start(self) -> None:
        """Start the threads. Once."""
        for thread in self._threads:
            thread.start()

    def submit(
        self, answers: Sequence[tuple[GenerationRequest, AnswerText]], sink: Sink, tally: Tally | None = None
    ) -> None:
        """Admit all of `answers` or none. Events arrive at `sink` until each had an `AnswerEnd` or `AnswerFailure`, and
        `tally` hears of each once, also of those that are aborted.

        Raises:
            EngineFull: there is no room now.
            EngineStopped: the engine takes no requests.
        """
        with self._wake:  # so that the model thread cannot end between the question and the answer
            if self.draining:
                raise EngineStopped(self.fault or "the server is stopping")
            self.admission.enter([(request.request_id, len(request.prompt_ids)) for request, _ in answers])
            for request, text in answers:
                self._jobs[request.request_id] = job = _Job(request, text, sink, tally)
                self._inbox.append(job)
            self._wake.notify()
        self.metrics.prompt_tokens.inc(sum(len(request.prompt_ids) for request, _ in answers))

    def abort(self, request_id: str) -> None:
        """End a request: no event follows (but one that is under way), and its slot is free before the next step."""
        if (job := self._jobs.pop(request_id, None)) is not None:
            self.metrics.requests.labels("abort").inc()
            with self._wake:
                ended = self._model_ended
                if not ended:
                    self._inbox.append(_Abort(job))
                    self._wake.notify()
            if ended:
                job.settle(aborted=True)

    def begin_drain(self) -> None:
        """Take no new requests; those admitted go on to their end."""
        self.draining = True

    def close(self) -> None:
        """Stop now: fail what is live, end the threads, close the runner. Idempotent."""
        with self._wake:
            self.draining = self._closing = True
            self._wake.notify()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self.core.runner.close()

    def _free(self, request_id: str) -> None:
        with self._wake:
            self._inbox.append(request_id)
            self._wake.notify()

    # -- the model thread ---------------------------------------------------------------------------------------------

    def _run_model(self) -> None:
        message = "the server is stopping"
        try:
            while self._wait_for_work():
                begun = time.perf_counter()
                self._apply_inbox()
                if self.core.has_work:
                    outcome = self.core.step()
                    self._account(outcome)
                    self._tokens.put(outcome.events)
                    self.metrics.busy.add(outcome.model_seconds, time.perf_counter() - begun)
        except Exception as error:  # a defect of the engine itself: say so on /health, answer what waits
            logger.exception("the model thread died")
            message = self.fault = f"the engine failed: {type(error).__name__}: {error}"
        finally:
            with self._wake:
                self.draining = self._model_ended = True
                left = list(self._jobs)
                unheard, self._inbox = self._inbox, []
            for command in unheard:
                if isinstance(command, _Abort):
                    command.job.settle(aborted=True)
            self._tokens.put([TokenEvent(request_id, None, "error", message) for request_id in left])
            self._tokens.put(None)

    def _wait_for_work(self) -> bool:
        with self._wake:
            while not (self._inbox or self.core.has_work or self._closing):
                self._wake.wait()
            return not self._closing

    def _apply_inbox(self) -> None:
        with self._wake:
            commands, self._inbox = self._inbox, []
        for command in commands:
            if isinstance(command, _Job):
                command.state = self.core.add(command.request)
                continue
            request_id = command.job.request.request_id if isinstance(command, _Abort) else command
            if (state := self.core.abort(request_id)) is not None:
                self._ended(state)
            if isinstance(command, _Abort):
                command.job.settle(aborted=True)

    def _account(self, outcome: StepOutcome) -> None:
        now = time.perf_counter()
        for state in outcome.admitted:
            self.admission.got_slot(state.request.request_id)
            if (job := self._jobs.get(state.request.request_id)) is not None:
                job.got_slot = now
        for state in outcome.ended:
            self._ended(state)
        self.metrics.step_tokens.inc(outcome.computed_tokens)
        self.metrics.generated_tokens.inc(sum(event.token is not None for event in outcome.events))
        self.metrics.step_seconds.observe(outcome.model_seconds)

    def _ended(self, state: SequenceState) -> None:
        seconds = None if state.slot_since is None else time.perf_counter() - state.slot_since
        self.admission.ended(state.request.request_id, seconds)

    # -- the output thread --------------------------------------------------------------------------------------------

    def _run_output(self) -> None:
        while (events := self._tokens.get()) is not None:
            for event in events:
                job = self._jobs.get(event.request_id)
                if job is None:
                    continue  # aborted, or ended by a stop string or the guard while this token was computed
                try:
                    self._deliver(job, event)
                except Exception as error:  # the text of one answer must not cost the others theirs
                    logger.exception("request %s: its text failed", event.request_id)
                    self._fail(job, f"the answer's text failed: {type(error).__name__}: {error}", abort=not event.end)

    def _deliver(self, job: _Job, event: TokenEvent) -> None:
        if event.token is None:
            self._fail(job, event.message, abort=False)
            return
        job.tokens += 1
        if job.tokens == 1:
            job.first_token = time.perf_counter()
            self.metrics.first_token_seconds.observe(job.first_token - job.submitted)
        silent = event.token in job.request.stop_ids
        delivery = Delivery("") if silent else job.text.push(event.token)
        if delivery.end is None and (event.end == "stop" or event.end == "length"):
            rest = job.text.finish(event.end)
            delivery = Delivery(delivery.text + rest.text, rest.end)
        if delivery.text:
            self._emit(job, TextDelta(delivery.text))
        if delivery.end and self._jobs.pop(job.request.request_id, None) is not None:
            if not event.end:
                self._free(job.request.request_id)  # text ended it, tokens did not: free its slot
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
        )

    def _fail(self, job: _Job, message: str, *, abort: bool) -> None:
        if self._jobs.pop(job.request.request_id, None) is not None:
            if abort:
                self._free(job.request.request_id)
            self.metrics.requests.labels("error").inc()
            job.settle()
            self._emit(job, AnswerFailure(message))

    def _emit(self, job: _Job, event: AnswerEvent) -> None:
        try:
            job.sink(job.request.request_id, event)
        except RuntimeError:  # the submitter's event loop is closed: nobody reads this answer
            self.abort(job.request.request_id)
