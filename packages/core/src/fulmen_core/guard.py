"""The contract of a guard: what the trainer and the server ask of RAISE, without knowing it (report section 6).

Its four components are methods: RAISE-1 `judge_document`, RAISE-2 `reward_penalty`, RAISE-3 `judge_input`,
RAISE-4 `open_output`. Text is `str`; offsets are indices into the text as it was given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a detector saw."""

    detector: str
    category: str  # code of the RAISE taxonomy
    score: float  # in [0, 1]
    start: int
    end: int
    label: str = ""  # the detector's own name for it, e.g. "resident_id"
    turn: int = 0  # RAISE-3: index of the message that the offsets are in


@dataclass(frozen=True, slots=True)
class DocumentVerdict:
    """RAISE-1: keep the document (perhaps rewritten), drop it, or quarantine it because a detector failed."""

    action: Literal["keep", "redact", "drop", "quarantine"]
    text: str
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    degraded: tuple[str, ...] = ()  # detectors that gave no result: it was judged without them, or failed closed


@dataclass(frozen=True, slots=True)
class InputVerdict:
    """RAISE-3: allow the conversation, replace it by a rewritten one, or block it with a message for the user."""

    action: Literal["allow", "rewrite", "block"]
    messages: tuple[Mapping[str, str], ...]
    findings: tuple[Finding, ...] = ()
    message: str = ""  # the safe completion, when blocked
    category: str = ""
    degraded: tuple[str, ...] = ()  # as in `DocumentVerdict`


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """RAISE-4: text that may be delivered now. When `stop` is set nothing follows and generation must end."""

    text: str
    stop: bool = False
    findings: tuple[Finding, ...] = field(default=())
    category: str = ""
    degraded: tuple[str, ...] = ()  # detectors that failed since the last chunk, and are not asked again


class OutputStream(Protocol):
    """One guarded answer. What `feed` has returned can never become part of a finding that would have been withheld."""

    def feed(self, text: str) -> OutputChunk:
        """Take the next piece of the answer, of any length; return what is safe to deliver."""
        ...

    def finish(self) -> OutputChunk:
        """The answer ended: return the rest."""
        ...


class Guard(Protocol):
    """A loaded guard under one policy."""

    name: str
    policy_version: str

    def judge_document(self, text: str) -> DocumentVerdict:
        """RAISE-1: judge one document of the corpus."""
        ...

    def reward_penalty(self, prompt: str, answer: str) -> float:
        """How harmful the answer is, in [0, 1]; the trainer subtracts it, weighted, from the reward."""
        ...

    def judge_input(self, messages: Sequence[Mapping[str, str]]) -> InputVerdict:
        """RAISE-3: judge a conversation before the model sees it."""
        ...

    def open_output(self, messages: Sequence[Mapping[str, str]]) -> OutputStream:
        """RAISE-4: open the guarded answer to a conversation."""
        ...

    def crosswalk(self, scheme: str) -> Mapping[str, Sequence[str]]:
        """How another scheme files the guard's categories, e.g. "openai": each code to the categories that it covers.

        Empty for a scheme that the guard does not know.
        """
        ...


@runtime_checkable
class FeedsTogether(Protocol):
    """A guard that takes the next pieces of several answers at once, which costs less than one after another."""

    def feed_together(self, pieces: Sequence[tuple[OutputStream, str]]) -> list[OutputChunk | Exception]:
        """Feed each of these streams, which it opened, its next piece: no stream twice. Returns for each what `feed`
        would return, or the exception that it would raise; none of them costs another its chunk.
        """
        ...


@runtime_checkable
class Explains(Protocol):
    """A guard that says what it sees in a text, also where it would do nothing."""

    def category_scores(self, text: str) -> Mapping[str, float]:
        """How suspect `text` is as what a user says: category -> score in [0, 1], also below the policy's thresholds.

        A category of which nothing is known is left out.
        """
        ...

    def explain(self, text: str) -> Mapping[str, Any]:
        """What each detector says of `text`, and what each component would do, as JSON shows it. Records nothing."""
        ...


@runtime_checkable
class RecordsLosses(Protocol):
    """A guard that writes down what it judges, and so also what it could not."""

    def record_loss(self, reason: str) -> None:
        """Record that a process of this guard died over what it was asked, which failed closed or was asked again."""
        ...


@runtime_checkable
class Completes(Protocol):
    """A guard that can say what it would answer instead."""

    def safe_completion(self, category: str, language: str) -> str:
        """Return what is said instead of an answer that `category` forbids, in `language` ("en" or "zh"); empty if the
        policy has nothing to say about it. Raises `UserError` for a category that it does not know.
        """
        ...
