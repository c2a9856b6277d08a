"""What is asked of the engine, and where one request stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fulmen_core.sampling import Sampler, SamplingParams
from fulmen_core.token_constraint import TokenConstraint


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
    """

    request_id: str
    prompt_ids: Sequence[int]
    params: SamplingParams
    seed: tuple[int, ...]
    stop_ids: frozenset[int]
    grammar: str = ""
    logprobs: int | None = None


class SequenceState:
    """A live request: its known tokens (prompt and answer), how many are computed, and the slot of their cache."""

    __slots__ = ("computed", "constraint", "known", "request", "sampler", "slot", "slot_since")

    def __init__(self, request: GenerationRequest, constraint: TokenConstraint | None = None) -> None:
        self.request = request
        self.constraint = constraint
        self.known: list[int] = list(request.prompt_ids)
        self.computed = 0
        self.slot: int | None = None
        self.slot_since: float | None = None  # time.perf_counter()
        self.sampler = Sampler(request.params, request.seed)

    @property
    def gap(self) -> int:
        """Known tokens that are not computed yet. One while decoding, more while the prompt goes in."""
        return len(self.known) - self.computed

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.known) - len(self.request.prompt_ids)
