"""One step of the engine, without threads: admit, divide the budget, run, sample, commit.

Legend: S sequences in the step, V vocabulary.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_core.log_probabilities import TokenLogProbabilities, log_probabilities
from fulmen_core.runner import Runner, SequenceStep
from fulmen_core.sampling import sample_batch
from fulmen_core.token_constraint import OpenConstraint
from fulmen_serving.engine.scheduler import check_limits, divide_budget
from fulmen_serving.engine.sequence import GenerationRequest, SequenceState
from fulmen_serving.engine.slots import SlotPool


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A request got a token, or ended, or both.

    ``end`` is None while it goes on; "stop": `token` is a stop id, or completes what the grammar asks for; "length":
    `token` is the last one allowed; "error": there is no token, and `message` says what went wrong.
    """

    request_id: str
    token: int | None
    end: Literal["stop", "length", "error"] | None = None
    message: str = ""
    logprobs: TokenLogProbabilities | None = None  # if the request asks for them


@dataclass(slots=True)
class StepOutcome:
    """What a step did. Seconds are wall time."""

    admitted: list[SequenceState] = field(default_factory=list)
    events: list[TokenEvent] = field(default_factory=list)
    ended: list[SequenceState] = field(default_factory=list)
    computed_tokens: int = 0
    model_seconds: float = 0.0


class EngineCore:
    """The requests, their slots and the runner. Not thread-safe: one thread owns it.

    Args:
        runner: a loaded model. The core releases slots in it but does not close it.
        open_constraint: reads the grammars of requests; None if none has one.
    """

    def __init__(self, runner: Runner, open_constraint: OpenConstraint | None = None) -> None:
        check_limits(runner.limits)
        self._open_constraint = open_constraint
        self.runner = runner
        self.slots = SlotPool(runner.limits.max_sequences)
        self.waiting: deque[SequenceState] = deque()
        self.running: list[SequenceState] = []  # in order of arrival

    @property
    def has_work(self) -> bool:
        """Whether a step would compute anything."""
        return bool(self.waiting or self.running)

    def add(self, request: GenerationRequest) -> SequenceState:
        """Queue a request whose prompt and answer fit the context; return where it stands from now on."""
        if request.grammar and self._open_constraint is None:
            raise ValueError(f"request {request.request_id} has a grammar, and this engine reads none")
        constraint = self._open_constraint(request.grammar) if self._open_constraint and request.grammar else None
        state = SequenceState(request, constraint)
        self.waiting.append(state)
        return state

    def abort(self, request_id: str) -> SequenceState | None:
        """End a request now and free what it holds; return it, or None if it is not here (any more)."""
        for state in self.running:
            if state.request.request_id == request_id:
                self._free(state)
                return state
        for state in self.waiting:
            if state.request.request_id == request_id:
                self.waiting.remove(state)
                return state
        return None

    def step(self) -> StepOutcome:
        """Run one step over all live sequences. A fault of the runner ends the requests of this step and no other."""
        outcome = StepOutcome(admitted=self._admit())
        counts = divide_budget([state.gap for state in self.running], self.runner.limits.max_step_tokens)
        planned = [(state, count) for state, count in zip(self.running, counts, strict=True) if count]
        if not planned:
            return outcome
        batch = [_share(state, count) for state, count in planned]
        begun = time.perf_counter()
        try:
            logits_SV = self.runner.step(batch)
        except Exception as error:  # a backend may raise anything; what its caches hold afterwards is unknown
            for state, _ in planned:
                self._fail(state, f"the backend failed: {type(error).__name__}: {error}", outcome)
            return outcome
        finally:
            outcome.model_seconds = time.perf_counter() - begun
        for state, count in planned:
            state.computed += count
            outcome.computed_tokens += count
        # where a prompt goes on, the logits predict a token that is known
        ready = [row for row, (state, _) in enumerate(planned) if not state.gap]
        states = [planned[row][0] for row in ready]
        if len(ready) < len(planned):
            logits_SV = logits_SV[ready]
        tokens = sample_batch([s.sampler for s in states], logits_SV, [s.constraint for s in states])
        for state, token, logits_V in zip(states, tokens, logits_SV, strict=True):
            if isinstance(token, UserError):
                self._fail(state, str(token), outcome)
            else:
                self._commit(state, token, logits_V, outcome)
        return outcome

    def _admit(self) -> list[SequenceState]:
        admitted = []
        while self.waiting and (slot := self.slots.take()) is not None:
            state = self.waiting.popleft()
            state.slot, state.slot_since = slot, time.perf_counter()
            self.running.append(state)
            admitted.append(state)
        return admitted

    def _commit(self, state: SequenceState, token: int, logits_V: NDArray[np.float32], outcome: StepOutcome) -> None:
        state.known.append(token)
        request, constraint = state.request, state.constraint
        if constraint is not None:
            constraint.accept(token)
        end: Literal["stop", "length"] | None = None
        if token in request.stop_ids or (constraint is not None and constraint.finished):
            end = "stop"
        elif state.generated >= request.params.max_tokens:
            end = "length"
        logprobs = None if request.logprobs is None else log_probabilities(logits_V, token, request.logprobs)
        outcome.events.append(TokenEvent(request.request_id, token, end, logprobs=logprobs))
        if end:
            outcome.ended.append(state)
            self._free(state)

    def _fail(self, state: SequenceState, message: str, outcome: StepOutcome) -> None:
        outcome.events.append(TokenEvent(state.request.request_id, None, "error", message))
        outcome.ended.append(state)
        self._free(state)

    def _free(self, state: SequenceState) -> None:
        self.running.remove(state)
        if state.slot is not None:
            self.runner.release(state.slot)
            self.slots.give_back(state.slot)
            state.slot = None


def _share(state: SequenceState, count: int) -> SequenceStep:
    if state.slot is None:
        raise AssertionError(f"request {state.request.request_id} runs without a slot")
    tokens: Sequence[int] = state.known[state.computed : state.computed + count]
    return SequenceStep(state.slot, state.computed, tokens)
