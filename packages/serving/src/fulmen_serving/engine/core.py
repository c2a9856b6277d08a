"""One step of the engine, without threads: admit, divide the budget, reserve, run, sample, commit.

Legend: R rows of results, V vocabulary, D model width.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_core.log_probabilities import TokenLogProbabilities, log_probabilities
from fulmen_core.runner import Runner, SequenceStep
from fulmen_core.sampling import sample_batch
from fulmen_core.softmax_draw import draw_of
from fulmen_core.token_constraint import OpenConstraint
from fulmen_serving.engine.adapter_places import AdapterPlaces
from fulmen_serving.engine.cache_manager import CacheManager, Found
from fulmen_serving.engine.scheduler import cheapest_victim, check_limits, divide_budget, open_tokens
from fulmen_serving.engine.sequence import GenerationRequest, SequenceState
from fulmen_serving.engine.speculation import Proposer

#: Of the batch-invariant mode: prompts are computed in chunks of so many tokens, or fewer if a step has no room.
_INVARIANT_CHUNK = 128
#: Guessed tokens in one step, over all sequences. A step of few tokens waits for weights to be read, so that some more
#: cost little; one of many computes each, whether or not it stands.
_MAX_GUESSES = 16


class TokenEvent(NamedTuple):
    """A request got a token, or ended, or both.

    ``end`` is None while it goes on; "stop": `token` is a stop id, or completes what the grammar asks for; "length":
    `token` is the last one allowed; "embedded": there is `vector` and no token; "error": there is no token, and
    `message` says what went wrong.
    """

    request_id: str
    token: int | None
    end: Literal["stop", "length", "embedded", "error"] | None = None
    message: str = ""
    logprobs: TokenLogProbabilities | None = None  # if the request asks for them
    vector: NDArray[np.float32] | None = None  # [D]


@dataclass(slots=True)
class StepOutcome:
    """What a step did. Seconds are wall time."""

    admitted: list[SequenceState] = field(default_factory=list)
    preempted: list[SequenceState] = field(default_factory=list)
    events: list[TokenEvent] = field(default_factory=list)
    ended: list[SequenceState] = field(default_factory=list)
    computed_tokens: int = 0
    reused_tokens: int = 0  # of prompts, found computed
    guessed_tokens: int = 0
    confirmed_tokens: int = 0  # guesses that stood
    model_seconds: float = 0.0


@dataclass(slots=True)
class _Share:
    """What one sequence computes in a step: `count` known tokens, then guesses.

    `closes` says whether all that is known will be computed: only then is the next token drawn.
    """

    state: SequenceState
    count: int
    closes: bool
    guesses: Sequence[int] = ()

    def as_step(self) -> SequenceStep:
        """What the runner is asked for."""
        state = self.state
        if state.slot is None:
            raise AssertionError(f"request {state.request.request_id} runs without a slot")
        tokens = [*state.known[state.computed : state.computed + self.count], *self.guesses]
        return SequenceStep(state.slot, state.computed, tokens, state.pages, 1 + len(self.guesses), state.adapter)


class EngineCore:
    """The requests, their caches and the runner. Not thread-safe: one thread owns it.

    Args:
        runner: a loaded model; `close` closes it.
        open_constraint: reads the grammars of requests; None if none has one.
        proposer: guesses tokens; None guesses none.
        batch_invariant: compute so that no answer depends on what else runs, to the last bit.

    Raises:
        UserError: the limits leave no room to advance, or the runner cannot do what is asked.
    """

    def __init__(
        self,
        runner: Runner,
        open_constraint: OpenConstraint | None = None,
        proposer: Proposer | None = None,
        *,
        batch_invariant: bool = False,
    ) -> None:
        check_limits(runner.limits)
        if runner.limits.kv_tokens and not runner.layout.page_tokens:
            raise UserError("the backend has no pages, so kv_tokens bounds nothing", remedy="leave --kv-tokens out")
        if batch_invariant and not runner.layout.batch_invariant:
            raise UserError("the backend's results depend on the batch here", remedy="leave --batch-invariant out")
        if proposer is not None and (batch_invariant or runner.layout.rewind < runner.limits.draft_tokens):
            raise UserError(
                "tokens cannot be guessed where they cannot be taken back, nor in batch-invariant mode",
                remedy="leave --speculate out",
            )
        self.runner = runner
        self._open_constraint, self._proposer = open_constraint, proposer
        self._draw_from = draw_of(runner)
        # at least one chunk fits beside a token of every other sequence
        room = runner.limits.max_step_tokens - runner.limits.max_sequences + 1
        self._chunk = min(_INVARIANT_CHUNK, room) if batch_invariant else 0
        self.cache = CacheManager(runner, self._chunk)
        self.adapters = AdapterPlaces(runner)
        self.waiting: list[SequenceState] = []  # in order of rank
        self.running: list[SequenceState] = []  # likewise
        self._arrivals = 0
        self._held_back: dict[int, tuple[SequenceState, int]] = {}  # by arrival: until another has computed so much

    @property
    def has_work(self) -> bool:
        """Whether a step would compute anything."""
        return bool(self.waiting or self.running)

    def add(self, request: GenerationRequest) -> SequenceState:
        """Queue a request whose prompt and answer fit the context; return where it stands from now on."""
        if request.grammar and self._open_constraint is None:
            raise ValueError(f"request {request.request_id} has a grammar, and this engine reads none")
        constraint = self._open_constraint(request.grammar) if self._open_constraint and request.grammar else None
        self._arrivals += 1
        state = SequenceState(request, self._arrivals, constraint)
        insort(self.waiting, state, key=_rank)
        return state

    def abort(self, request_id: str, *, forget: bool = False) -> SequenceState | None:
        """End a request now and free what it holds; return it, or None if it is not here (any more).

        Args:
            request_id: whose.
            forget: keep nothing of what it computed, nor of what it left before: it was refused.
        """
        if forget:
            self.cache.forget(request_id)
        for state in [*self.running, *self.waiting]:
            if state.request.request_id == request_id:
                self._leave(state, keep=not forget)
                return state
        return None

    def step(self) -> StepOutcome:
        """Run one step over all live sequences. A fault of the runner ends the requests of this step and no other."""
        outcome = StepOutcome()
        self._admit(outcome)
        shares = self._plan(outcome)
        if not shares:
            return outcome
        embedding = [share for share in shares if share.closes and share.state.request.embed]
        generating = [share for share in shares if not (share.closes and share.state.request.embed)]
        begun = time.perf_counter()
        try:
            results_RV = self.runner.step([share.as_step() for share in generating]) if generating else None
            hidden_RD = self.runner.hidden([share.as_step() for share in embedding]) if embedding else None
        except Exception as error:  # a backend may raise anything; what its caches hold afterwards is unknown
            for share in shares:
                self._fail(share.state, f"the backend failed: {_said(error)}", outcome)
            return outcome
        finally:
            outcome.model_seconds = time.perf_counter() - begun
        drawing, rows, row = [], [], 0
        for share in generating:
            if share.closes:  # where a prompt goes on, the results predict a token that is known
                drawing.append(share)
                rows.append(row)
            row += 1 + len(share.guesses)
        for share in shares:
            self._computed(share, outcome)
        if hidden_RD is not None:
            for share, vector_D in zip(embedding, hidden_RD, strict=True):
                self._end(
                    share.state, TokenEvent(share.state.request.request_id, None, "embedded", vector=vector_D), outcome
                )
        if results_RV is not None:
            self._draw(drawing, rows, results_RV, outcome)
        return outcome

    def close(self) -> None:
        """Close the runner, and the draft model if there is one. Idempotent."""
        self.runner.close()
        if self._proposer is not None:
            self._proposer.close()

    # -- before the model ---------------------------------------------------------------------------------------------

    def _admit(self, outcome: StepOutcome) -> None:
        places = self.runner.limits.max_sequences
        for state in list(self.waiting):
            if len(self.running) == places and not self._make_place(state, outcome):
                state.explain("queued", f"all {places} places are taken")
                break
            if state.arrival in self._held_back:
                other, tokens = self._held_back[state.arrival]
                if other.slot is not None and other.computed < tokens:
                    continue
                del self._held_back[state.arrival]
            found = self.cache.find(state, self.running)
            if found.promising is not None:
                self._hold_back(state, *found.promising)
                continue
            if (why := self._place(state, found, outcome)) is None:
                continue
            if why:
                state.explain("queued", why)
                break
            if found.alike > state.computed:  # a third that begins alike shall find what the second did not
                self._mark(state, found.alike)
            if all(decision.what != "admitted" for decision in state.decisions):
                state.reused = state.computed
            outcome.reused_tokens += state.computed
            state.explain("admitted", found.why)
            self.waiting.remove(state)
            insort(self.running, state, key=_rank)
            outcome.admitted.append(state)
        for before, state in pairwise(self.waiting):
            if not state.decisions:
                state.explain("queued", f"{before.request.request_id} comes before it")

    def _place(self, state: SequenceState, found: Found, outcome: StepOutcome) -> str | None:
        """Give `state` its adapter, a slot and pages; return why it cannot have them now, None if it never will."""
        adapter = state.request.adapter
        try:
            number = self.adapters.take(adapter)
        except Exception as error:  # of a folder that is somebody else's, read by a backend that may raise anything
            self._fail(state, f"the adapter cannot be loaded: {_said(error)}", outcome)
            return None
        if number is None:
            return f"all {self.runner.limits.adapters} places for adapters are taken"
        if why := self.cache.admit(state, found):
            self.adapters.give_back(adapter)
            return why
        state.adapter = number
        return ""

    def _make_place(self, state: SequenceState, outcome: StepOutcome) -> bool:
        """Preempt a running sequence of lower priority for `state`, if there is one."""
        victim = cheapest_victim(self.running, (state.request.priority + 1, 0))
        if victim is None:
            return False
        self._preempt(victim, f"{state.request.request_id} is of higher priority", outcome)
        return True

    def _hold_back(self, state: SequenceState, other: SequenceState, tokens: int) -> None:
        """Let `state` wait until `other` has computed the `tokens` tokens that they share."""
        self._held_back[state.arrival] = (other, tokens)
        state.explain("queued", f"{other.request.request_id} is computing {tokens} tokens that both begin with")
        self._mark(other, tokens)

    def _mark(self, state: SequenceState, tokens: int) -> None:
        """Keep the first `tokens` tokens of `state` when they are computed, unless they can be had from it anyway."""
        beyond = len(state.prompt_T) > self.cache.reach.whole
        if beyond and state.computed < tokens < len(state.prompt_T) and tokens not in state.marks:
            insort(state.marks, tokens)

    def _plan(self, outcome: StepOutcome) -> list[_Share]:
        gaps = [open_tokens(state, self._chunk) for state in self.running]
        counts = divide_budget(gaps, self.runner.limits.max_step_tokens)
        shares = []
        for state, gap, count in zip(list(self.running), gaps, counts, strict=True):
            if self._chunk and count < gap:
                continue  # a chunk is computed whole or not at all
            if count and state.slot is not None and self._reserve(state, state.computed + count, outcome):
                shares.append(_Share(state, count, count == state.gap))
        shares = [share for share in shares if share.state.slot is not None]  # some may have been preempted for others
        if self._proposer is not None:
            self._guess(shares, self._proposer)
            outcome.guessed_tokens = sum(len(share.guesses) for share in shares)
        return shares

    def _reserve(self, state: SequenceState, tokens: int, outcome: StepOutcome) -> bool:
        """Have pages for `tokens` tokens of `state`, if need be by preempting others; False if it went itself."""
        while not self.cache.extend(state, tokens):
            victim = cheapest_victim(self.running, state.rank) or state
            self._preempt(victim, f"{state.request.request_id} needs its pages", outcome)
            if victim is state:
                return False
        return True

    def _preempt(self, state: SequenceState, why: str, outcome: StepOutcome) -> None:
        state.explain("preempted", f"{why}; {state.computed} tokens are computed again unless they are still kept")
        self.running.remove(state)
        self._give_up_place(state, keep=True)
        state.marks.clear()
        insort(self.waiting, state, key=_rank)
        outcome.preempted.append(state)

    def _guess(self, shares: Sequence[_Share], proposer: Proposer) -> None:
        """Let guesses take what is left of the step."""
        limits = self.runner.limits
        left = min(_MAX_GUESSES, limits.max_step_tokens - sum(share.count for share in shares))
        wishes, wishing = [], []
        for share in shares:
            state = share.state
            room = min(
                state.request.params.max_tokens - state.generated - 1,
                limits.max_context - len(state.known) - 1,
                limits.draft_tokens,
                left,
            )
            if share.closes and room > 0 and not state.request.embed:
                wishes.append((state, room))
                wishing.append(share)
        for share, guesses in zip(wishing, proposer.propose(wishes) if wishes else [], strict=True):
            kept = guesses[:left]
            if kept and self.cache.extend(share.state, len(share.state.known) + len(kept)):
                share.guesses = kept
                left -= len(kept)

    # -- after the model ----------------------------------------------------------------------------------------------

    def _computed(self, share: _Share, outcome: StepOutcome) -> None:
        state = share.state
        state.written = max(state.written, state.computed + share.count + len(share.guesses))
        state.computed += share.count
        state.read = max(state.read, min(state.computed, len(state.prompt_T)))
        outcome.computed_tokens += share.count + len(share.guesses)
        if state.marks and state.computed >= state.marks[0]:
            del state.marks[0]
            self.cache.mark(state)

    def _draw(
        self, drawing: Sequence[_Share], rows: Sequence[int], results_RV: NDArray[np.float32], outcome: StepOutcome
    ) -> None:
        states = [share.state for share in drawing]
        firsts_SV = results_RV if len(rows) == len(results_RV) else results_RV[list(rows)]
        tokens = sample_batch([s.sampler for s in states], firsts_SV, [s.constraint for s in states], self._draw_from)
        for share, row, drawn in zip(drawing, rows, tokens, strict=True):
            state, token = share.state, drawn
            for place in range(len(share.guesses) + 1):
                if isinstance(token, UserError):
                    self._fail(state, str(token), outcome)
                    break
                ended = self._commit(state, token, results_RV[row + place], outcome)
                if ended or place == len(share.guesses) or token != share.guesses[place]:
                    break
                state.computed += 1  # the guess stood, so what was computed of it does
                outcome.confirmed_tokens += 1
                try:
                    token = state.sampler.sample(results_RV[row + place + 1], state.constraint, self._draw_from)
                except UserError as error:
                    token = error

    def _commit(self, state: SequenceState, token: int, logits_V: NDArray[np.float32], outcome: StepOutcome) -> bool:
        """Take `token` as the next; return whether the answer ends with it."""
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
        event = TokenEvent(request.request_id, token, end, logprobs=logprobs)
        if end:
            self._end(state, event, outcome)
        else:
            outcome.events.append(event)
        return end is not None

    def _end(self, state: SequenceState, event: TokenEvent, outcome: StepOutcome) -> None:
        outcome.events.append(event)
        outcome.ended.append(state)
        self._leave(state, keep=event.end != "error")

    def _fail(self, state: SequenceState, message: str, outcome: StepOutcome) -> None:
        self._end(state, TokenEvent(state.request.request_id, None, "error", message), outcome)

    def _leave(self, state: SequenceState, *, keep: bool) -> None:
        (self.running if state in self.running else self.waiting).remove(state)
        self._held_back.pop(state.arrival, None)
        if self._proposer is not None:
            self._proposer.ended(state)
        self._give_up_place(state, keep=keep)

    def _give_up_place(self, state: SequenceState, *, keep: bool) -> None:
        """Take adapter, slot and pages of `state` back, if it has them."""
        if state.adapter:
            self.adapters.give_back(state.request.adapter)
            state.adapter = 0
        self.cache.finish(state, keep=keep)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _rank(state: SequenceState) -> tuple[int, int]:
    return state.rank
