"""The keys of a policy file, described: `fulmen raise policy schema` and the reference page are made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fulmen_safety.settings import Table

Phase = Literal["corpus", "reward", "input", "output"]
Language = Literal["en", "zh"]
Score = Annotated[float, Field(ge=0.0, le=1.0)]

#: Actions of each phase that change something, the mildest first. Where findings overlap the strictest wins.
STRICTNESS: dict[str, tuple[str, ...]] = {
    "corpus": ("keep", "redact", "drop"),
    "input": ("allow", "rewrite", "block"),
    "output": ("allow", "redact", "replace", "stop"),
}

#: Name of the table for categories that are not listed.
DEFAULT = "default"


class DetectorEntry(Table):
    """One detector of the policy, in its place in the order."""

    name: str
    """Of an installed detector; `fulmen plugins list` shows them."""
    enabled: bool = True
    """False leaves out a detector that the policy would inherit."""
    deadline_ms: float = Field(2000.0, gt=0)
    """Milliseconds for a text of up to 20,000 characters, in proportion above."""
    on_error: Literal["closed", "open"] = "closed"
    """What a failure means: "closed" as if it had found something, "open" as if it were not there."""
    phases: tuple[Phase, ...] | None = None
    """Where it is asked; left out: in all phases that it offers."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The detector's own."""
    rules: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Category -> keys that differ from [categories.CATEGORY] for what this detector finds."""


class Messages(Table):
    """What is said to the user, by language. English is the fallback."""

    en: str
    """In English."""
    zh: str = ""
    """In Chinese."""

    def text(self, language: str) -> str:
        """Return the message in `language`, or in English."""
        return (self.zh if language == "zh" else "") or self.en


class CategoryPolicy(Table):
    """What the four components do about one category."""

    threshold: Score
    """A finding counts from this score on."""
    thresholds: dict[Language, Score] = Field(default_factory=dict)
    """Language -> threshold in its place."""
    corpus: Literal["keep", "redact", "drop"]
    """What RAISE-1 does with a document."""
    reward: Score
    """What RAISE-2 takes from the reward of an answer, times the score."""
    input: Literal["allow", "rewrite", "block"]
    """What RAISE-3 does with a conversation."""
    output: Literal["allow", "redact", "replace", "stop"]
    """What RAISE-4 does with an answer; replace and stop end it."""
    message: Messages | None = None
    """The safe completion: said when input is blocked or output replaced."""

    @model_validator(mode="after")
    def _what_is_said(self) -> Self:
        if self.message is None and (self.input == "block" or self.output == "replace"):
            raise ValueError("a category that blocks input or replaces output needs message.en")
        return self


class InputPolicy(Table):
    """Whose turns of a conversation are not judged."""

    trusted_roles: tuple[str, ...] = ("assistant",)
    """Roles whose turns are the model's own words."""


class AuditPolicy(Table):
    """Where verdicts are recorded."""

    path: str
    """A file, relative to the policy's: JSON Lines, or SQLite if it ends in .db; or a URL postgresql://USER@HOST/NAME."""
    text: bool = False
    """Whether to record the text itself, which then holds what was to be protected."""
    keep: str = ""
    """How long records are kept, as "90d": what `fulmen raise audit prune` takes if it is not told."""


class PolicyFile(Table):
    """The file's content. See `data/policies/default.toml`, which explains every key."""

    name: str
    """For people."""
    version: str
    """The author's; verdicts add a hash of the content."""
    taxonomy: str
    """The version of the taxonomy that it is written for."""
    detectors: tuple[DetectorEntry, ...]
    """Asked in this order."""
    failure: Messages
    """Said when a detector failed that fails closed."""
    input: InputPolicy = InputPolicy()
    """Of RAISE-3."""
    audit: AuditPolicy | None = None
    """Of the audit log; left out: there is none."""
    categories: dict[str, CategoryPolicy]
    """Category -> rules; what is not listed, or left out, is in [categories.default]."""
