"""The policy: one TOML file that says, category by category, what each of the four components does."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fulmen_core.errors import UserError
from fulmen_core.guard import Finding
from fulmen_core.recipes import read_toml
from fulmen_safety.language import language_at
from fulmen_safety.settings import Table, read_settings
from fulmen_safety.taxonomy import taxonomy

Phase = Literal["corpus", "reward", "input", "output"]
Language = Literal["en", "zh"]
Score = Field(ge=0.0, le=1.0)

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
    deadline_ms: float = Field(2000.0, gt=0)  # for up to 20,000 characters, in proportion above
    on_error: Literal["closed", "open"] = "closed"
    phases: tuple[Phase, ...] | None = None  # None: all that the detector offers
    settings: dict[str, Any] = Field(default_factory=dict)


class Messages(Table):
    """What is said to the user, by language. English is the fallback."""

    en: str
    zh: str = ""

    def text(self, language: str) -> str:
        """Return the message in `language`, or in English."""
        return (self.zh if language == "zh" else "") or self.en


class CategoryPolicy(Table):
    """What the four components do about one category."""

    threshold: float = Score
    thresholds: dict[Language, float] = Field(default_factory=dict)
    corpus: Literal["keep", "redact", "drop"]
    reward: float = Score
    input: Literal["allow", "rewrite", "block"]
    output: Literal["allow", "redact", "replace", "stop"]
    message: Messages | None = None

    @model_validator(mode="after")
    def _what_is_said(self) -> Self:
        if self.message is None and (self.input == "block" or self.output == "replace"):
            raise ValueError("a category that blocks input or replaces output needs message.en")
        return self


class InputPolicy(Table):
    """Whose turns of a conversation are not judged."""

    trusted_roles: tuple[str, ...] = ("assistant",)


class AuditPolicy(Table):
    """Where verdicts are recorded. `text` also records the text itself, which then holds what was to be protected."""

    path: str  # relative to the policy file
    text: bool = False


class PolicyFile(Table):
    """The file's content. See `data/policies/default.toml`, which explains every key."""

    name: str
    version: str
    taxonomy: str
    detectors: tuple[DetectorEntry, ...]
    failure: Messages
    input: InputPolicy = InputPolicy()
    audit: AuditPolicy | None = None
    categories: dict[str, CategoryPolicy]


@dataclass(frozen=True)
class Policy:
    """A checked policy. `version` is the stated version and a hash of the content, e.g. ``"1+3f2a9c01d4be"``."""

    file: PolicyFile
    version: str
    where: str
    folder: Path

    def category(self, code: str) -> CategoryPolicy:
        """Return the rules of a category of the taxonomy."""
        return self.file.categories.get(code) or self.file.categories[DEFAULT]

    def counts(self, finding: Finding, text: str) -> bool:
        """Return whether a finding in `text` reaches its category's threshold for the language around it."""
        rules = self.category(finding.category)
        threshold = rules.threshold
        if rules.thresholds:
            by_language: Mapping[str, float] = rules.thresholds  # type: ignore[assignment]
            threshold = by_language.get(language_at(text, finding.start, finding.end), threshold)
        return finding.score >= threshold

    def action(self, finding: Finding, phase: str) -> str:
        """Return what `phase` ("corpus", "input" or "output") does about the finding's category."""
        action: str = getattr(self.category(finding.category), phase)
        return action

    def message(self, category: str, language: str) -> str:
        """Return the safe completion of a category, or the failure message where it has none."""
        return (self.category(category).message or self.file.failure).text(language)


def load_policy(path: Path | None = None) -> Policy:
    """Read a policy file, or the default policy that comes with the package.

    Raises:
        UserError: it is missing, no TOML, has an unknown key, category or value, or leaves a category without rules.
    """
    if path is not None:
        return make_policy(read_toml(path, "policy"), where=str(path), folder=path.resolve().parent)
    return make_policy(tomllib.loads(default_source()), where="the default policy", folder=Path.cwd())


def default_source() -> str:
    """Return the default policy as TOML, comments included: what a policy of one's own starts from."""
    return (resources.files("fulmen_safety") / "data/policies/default.toml").read_text("utf-8")


def make_policy(table: Mapping[str, Any], *, where: str, folder: Path) -> Policy:
    """Check a policy's table, as `load_policy` does."""
    file = read_settings(PolicyFile, _with_defaults(table, where), where)
    if file.taxonomy != taxonomy().version:
        what = f"the policy is written for taxonomy {file.taxonomy!r}"
        raise UserError(what, where=where, remedy=f"this version of RAISE has {taxonomy().version!r}")
    names = [entry.name for entry in file.detectors]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(
            f"the detector {twice!r} is listed twice", where=f"{where} [[detectors]]", remedy="merge its settings"
        )
    canonical = json.dumps(table, sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    return Policy(file, f"{file.version}+{digest}", where, folder)


def _with_defaults(table: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Check the names of the categories, and give each the default's value for every key that it leaves out."""
    categories = table.get("categories")
    if not isinstance(categories, dict):
        return table  # its absence or form is told with the other keys
    for code in categories:
        if code != DEFAULT:
            taxonomy().check(code, f"{where} [categories]")
    default = categories.get(DEFAULT)
    if default is None and (missing := set(taxonomy().titles) - set(categories)):
        remedy = "add [categories.default] for those that are not listed"
        raise UserError(f"there are no rules for {', '.join(sorted(missing))}", where=where, remedy=remedy)
    if not isinstance(default, dict):
        return table
    filled = {code: {**default, **rules} if isinstance(rules, dict) else rules for code, rules in categories.items()}
    return {**table, "categories": filled}
