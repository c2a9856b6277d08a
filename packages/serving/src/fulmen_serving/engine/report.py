"""What passes between the engine and wherever its model runs: commands there, reports back. Plain data, no references.

It is the same for a thread of this process and for a process of its own: one of them shares memory, the other pickles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fulmen_core.runner import EngineLimits
from fulmen_serving.engine.core import TokenEvent
from fulmen_serving.engine.sequence import Decision, GenerationRequest


@dataclass(frozen=True, slots=True)
class Abort:
    """End a request, whether or not it is still there.

    Attributes:
        request_id: whose.
        forget: keep nothing of what it computed: its prompt or answer was refused.
    """

    request_id: str
    forget: bool = False


#: A request to add, or the abort of one.
Command = GenerationRequest | Abort


@dataclass(frozen=True, slots=True)
class Ended:
    """A request holds nothing any more: it was completed, failed or aborted. Said once for each that was added.

    Attributes:
        request_id: whose.
        prompt_tokens: of its prompt, those that were computed.
        generated: tokens of its answer, whether or not anybody read them.
        slot_seconds: how long it had a slot; None if it never had one.
    """

    request_id: str
    prompt_tokens: int
    generated: int
    slot_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request got a slot.

    Attributes:
        request_id: whose.
        seconds_ago: when.
        reused: tokens of its prompt that were found computed when it first got one.
        decisions: all that was decided about it so far, and why.
    """

    request_id: str
    seconds_ago: float
    reused: int = 0
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What the caches hold now, and how often something was dropped from them since the model was loaded.

    And how many adapters are loaded.
    """

    pages: int = 0
    used_pages: int = 0  # by what runs and by what is kept
    kept_prefixes: int = 0
    evictions: int = 0
    adapters: int = 0


@dataclass(slots=True)
class StepReport:
    """What happened in one step, or without one: aborts, and a model that was lost. Seconds are wall time.

    Attributes:
        admitted: requests that got a slot.
        requeued: requests that lost their slot and wait for another.
        preempted: how many of them lost it to another request.
        events: tokens and ends, in order.
        ended: requests that are gone. One that failed or was completed has its event in the same report.
        computed_tokens: prompts included.
        reused_tokens: of prompts, found computed.
        guessed_tokens, confirmed_tokens: tokens that were guessed, and those of them that stood.
        cache: what the caches hold afterwards.
        model_seconds: in the runner.
        cycle_seconds: of the step and everything around it since the last one, but not of waiting for requests.
        lost: why the model was lost, if it was; it is being started again.
    """

    admitted: list[Admitted] = field(default_factory=list)
    requeued: list[str] = field(default_factory=list)
    preempted: int = 0
    events: list[TokenEvent] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    computed_tokens: int = 0
    reused_tokens: int = 0
    guessed_tokens: int = 0
    confirmed_tokens: int = 0
    cache: CacheUse = CacheUse()
    model_seconds: float = 0.0
    cycle_seconds: float = 0.0
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """How the model stands: "stopped" has a `reason` unless it was asked to, "restarting" always has one."""

    state: Literal["starting", "running", "restarting", "stopped"] = "running"
    reason: str = ""
    restarts: int = 0


class ModelHost(Protocol):
    """Where an `EngineCore` runs. Methods may be called from any thread and do not block, but for `start` and `close`.

    Attributes:
        limits: of the runner.
    """

    limits: EngineLimits

    @property
    def condition(self) -> Condition:
        """How it stands now."""
        ...

    def start(self, deliver: Callable[[StepReport], None], stopped: Callable[[str], None]) -> None:
        """Run from now on. Once.

        Args:
            deliver: told of every step, one at a time and in order, but an abort may be reported beside.
            stopped: told once, at the end, with the fault that ended it, or "" if it was closed.
        """
        ...

    def add(self, request: GenerationRequest) -> None:
        """Queue a request. Nothing is said about it once the host has stopped."""
        ...

    def abort(self, request_id: str, *, forget: bool = False) -> None:
        """End a request before the next step; see `Abort`. Harmless if it is gone."""
        ...

    def close(self) -> None:
        """Stop, and give back the model's memory. Idempotent."""
        ...
