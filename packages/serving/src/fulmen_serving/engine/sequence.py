"""What is asked of the engine, and where one request stands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fulmen_core.sampling import Sampler, SamplingParams
from fulmen_core.token_constraint import TokenConstraint
from fulmen_serving.engine.adapter_places import AdapterRef


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate.

    Attributes:
        request_id: unique among live requests.
        prompt_ids: the prompt, at least one token.
        params: how to choose tokens; `params.stop` is applied to the text, by `AnswerText`.
        seed: what the draws depend on, and nothing else: ``(seed, index of the choice)``.
        stop_ids: tokens that end the answer; the one that ended it is counted but carries no text.
        grammar: what the answer must be, as the engine's `OpenConstraint` reads it; empty constrains nothing.
        logprobs: how many of the likeliest tokens to report at each place; None reports no log probabilities.
        priority: the lower, the sooner it is served; among equals the first to come.
        salt: prefixes are shared among requests of the same salt only, such as those of one API key.
        embed: give the final hidden state of the prompt's last token instead of an answer.
        generated: tokens of the answer that an engine before this one chose; this one goes on after them.
        adapter: what the model is changed by; None: the model alone.
    """

    request_id: str
    prompt_ids: Sequence[int]
    params: SamplingParams
    seed: tuple[int, ...]
    stop_ids: frozenset[int]
    grammar: str = ""
    logprobs: int | None = None
    priority: int = 0
    salt: str = ""
    embed: bool = False
    generated: tuple[int, ...] = ()
    adapter: AdapterRef | None = None

    @property
    def cache_salt(self) -> str:
        """What keys and values depend on beside tokens, and who may see them: only equal ones share prefixes."""
        return self.salt if self.adapter is None else f"{self.salt}\n{self.adapter.fingerprint}"


@dataclass(frozen=True, slots=True)
class Decision:
    """Something the engine decided about a request, and why. `at` is in seconds since the request came."""

    at: float
    what: str  # "queued", "admitted", "preempted"
    why: str


@dataclass(slots=True, eq=False)
class SequenceState:
    """A live request: its known tokens (prompt and answer), how many are computed, and where their caches lie.

    Attributes:
        arrival: number in the order of arrival.
        constraint: what its next token may be; None: anything.
        known: prompt and answer so far.
        computed: how many of them the caches hold.
        written: how far they were ever written: with guesses that did not stand, beyond what is computed.
        slot: of its windows; None while it waits.
        pages: of its full caches.
        adapter: the runner's number of its adapter while it runs; 0: it has none.
        read: prompt tokens that are or were computed.
        reused: prompt tokens that were found computed when it was first admitted.
        marks: numbers of tokens at which what is computed is to be kept for others that begin alike, rising.
        decisions: why it waited, what it reused, why it was preempted.
    """

    request: GenerationRequest
    arrival: int = 0
    constraint: TokenConstraint | None = None
    known: list[int] = field(init=False)
    prompt_T: NDArray[np.int32] = field(init=False)
    sampler: Sampler = field(init=False)
    computed: int = 0
    written: int = 0
    slot: int | None = None
    slot_since: float | None = None  # time.perf_counter()
    pages: list[int] = field(default_factory=list)
    adapter: int = 0
    read: int = 0
    reused: int = 0
    marks: list[int] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    since: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        request = self.request
        self.known = [*request.prompt_ids, *request.generated]
        self.prompt_T = np.array(request.prompt_ids, np.int32)
        self.sampler = Sampler(request.params, request.seed)
        if request.generated:
            self.sampler.resume(request.generated)
            if self.constraint is not None:
                for token in request.generated:
                    self.constraint.accept(token)

    @property
    def gap(self) -> int:
        """Known tokens that are not computed yet. One while decoding, more while the prompt goes in."""
        return len(self.known) - self.computed

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.known) - len(self.request.prompt_ids)

    @property
    def rank(self) -> tuple[int, int]:
        """What it is served by: its priority, then its arrival; the lower, the sooner."""
        return (self.request.priority, self.arrival)

    def explain(self, what: str, why: str) -> None:
        """Note a decision; of one that is made again and again, the first time and the last reason."""
        at = time.perf_counter() - self.since
        if self.decisions and self.decisions[-1].what == what:
            at = self.decisions.pop().at
        self.decisions.append(Decision(at, what, why))
