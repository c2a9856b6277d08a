"""The policy: one TOML file that says, category by category, what each of the four components does."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError
from fulmen_core.guard import Finding
from fulmen_core.recipes import read_toml
from fulmen_safety.inheritance import PROFILES, profile_source, whole
from fulmen_safety.language import language_at
from fulmen_safety.policy_file import DEFAULT, STRICTNESS, CategoryPolicy, DetectorEntry, PolicyFile
from fulmen_safety.settings import read_settings
from fulmen_safety.taxonomy import taxonomy

__all__ = ["DEFAULT", "STRICTNESS", "CategoryPolicy", "DetectorEntry", "Policy", "load_policy", "make_policy"]


@dataclass(frozen=True)
class Policy:
    """A checked policy. `version` is the stated version and a hash of the content, e.g. ``"1+3f2a9c01d4be"``."""

    file: PolicyFile
    version: str
    where: str
    folder: Path
    of_detectors: Mapping[tuple[str, str], CategoryPolicy] = field(
        default_factory=dict
    )  # (detector, category) -> rules

    @property
    def detectors(self) -> tuple[DetectorEntry, ...]:
        """The detectors that are asked, in order."""
        return tuple(entry for entry in self.file.detectors if entry.enabled)

    def category(self, code: str) -> CategoryPolicy:
        """Return the rules of a category of the taxonomy."""
        return self.file.categories.get(code) or self.file.categories[DEFAULT]

    def rules(self, finding: Finding) -> CategoryPolicy:
        """Return the rules for a finding: those of its category, or what its detector's entry makes of them."""
        own = self.of_detectors.get((finding.detector, finding.category))
        return own or self.category(finding.category)

    def threshold(self, finding: Finding, text: str) -> float:
        """Return the score from which the finding in `text` counts, for the language around it."""
        rules = self.rules(finding)
        if not rules.thresholds:
            return rules.threshold
        by_language: Mapping[str, float] = rules.thresholds  # type: ignore[assignment]
        return by_language.get(language_at(text, finding.start, finding.end), rules.threshold)

    def counts(self, finding: Finding, text: str) -> bool:
        """Return whether a finding in `text` reaches its category's threshold for the language around it."""
        return finding.score >= self.threshold(finding, text)

    def least_score(self, detector: str, categories: Iterable[str]) -> float:
        """Return the lowest score with which a finding of a detector may count: of these categories, in any language.

        Args:
            categories: as the detector declares them; ``"*"`` is every one.
        """
        codes = list(categories)
        rules = [
            self.of_detectors.get((detector, code)) or self.category(code)
            for code in (taxonomy().titles if "*" in codes else codes)
        ]
        return min((min([one.threshold, *one.thresholds.values()]) for one in rules), default=0.0)

    def action(self, finding: Finding, phase: str) -> str:
        """Return what `phase` ("corpus", "input" or "output") does about the finding."""
        action: str = getattr(self.rules(finding), phase)
        return action

    def message(self, finding: Finding, language: str) -> str:
        """Return the safe completion for a finding, or the failure message where its rules have none."""
        return (self.rules(finding).message or self.file.failure).text(language)


def load_policy(source: Path | str | None = None) -> Policy:
    """Read a policy.

    Args:
        source: a file, or the name of a profile if there is no such file; None is the default profile.

    Raises:
        UserError: it is missing, no TOML, has an unknown key, category or value, leaves a category without rules, or
            extends what is not there or itself.
    """
    name = "default" if source is None else str(source)
    path = Path(name)
    if name in PROFILES and not path.is_file():
        table = whole(tomllib.loads(profile_source(name)), name, Path())
        return make_policy(table, where=f"the policy {name!r} of the package", folder=Path.cwd())
    table = whole(read_toml(path, "policy"), str(path), path.parent, (path.resolve(),))
    return make_policy(table, where=str(path), folder=path.resolve().parent)


def default_source() -> str:
    """Return the default policy as TOML, comments included: what a policy of one's own starts from."""
    return profile_source("default")


def make_policy(table: Mapping[str, Any], *, where: str, folder: Path) -> Policy:
    """Check a policy's table, in which everything inherited is there already.

    Raises:
        UserError: an unknown key, category or value, or a category without rules.
    """
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
    return Policy(file, f"{file.version}+{digest}", where, folder, _of_detectors(file, where))


def _of_detectors(file: PolicyFile, where: str) -> dict[tuple[str, str], CategoryPolicy]:
    """The rules of each category that a detector's entry changes."""
    made = {}
    for entry in file.detectors:
        place = f"{where} [[detectors]] {entry.name} [rules]"
        for code, changes in entry.rules.items():
            taxonomy().check(code, place)
            base = file.categories.get(code) or file.categories[DEFAULT]
            table = {**base.model_dump(exclude_none=True), **changes}
            made[entry.name, code] = read_settings(CategoryPolicy, table, f"{place} {code}")
    return made


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
