"""The detector ``quality``: a finding over the whole document for each rule that it breaks, and for the scorer's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fulmen_core.suggestions import remedy_for_unknown
from fulmen_raise_quality.boilerplate import phrases
from fulmen_raise_quality.measures import measures_of
from fulmen_raise_quality.rules import rule_names, scored
from fulmen_raise_quality.scorer import SCORER_RULE, Scorer
from fulmen_raise_quality.units import character_classes, units_of
from fulmen_safety import Finding, UserError
from fulmen_safety.settings import Field, Table, read_settings

CATEGORY = "low_quality"


class Settings(Table):
    """The detector's settings in a policy."""

    rules: tuple[str, ...] | None = None  # None: all
    without: tuple[str, ...] = ()
    scorer: str = ""  # folder that `fulmen raise quality train` wrote
    floor: float = Field(0.5, ge=0.0, le=1.0)  # lower scores are not reported


class QualityDetector:
    """Judges whole documents. Its findings' labels are the names of the rules."""

    name = "quality"

    def __init__(self, rules: frozenset[str], scorer: Scorer | None, floor: float) -> None:
        self._rules, self._scorer, self._floor = rules, scorer, floor
        phrases(), character_classes()  # read here, not under the first document's deadline

    def rule_scores(self, text: str) -> dict[str, float]:
        """Return rule -> score of each rule that means something for this text; see `fulmen_raise_quality.rules`."""
        if not text.strip():
            return {}
        units = units_of(text)
        found = {name: score for name, score in scored(units.kind, measures_of(units)).items() if name in self._rules}
        if self._scorer is not None and (score := self._scorer.score(text)) is not None:
            found[SCORER_RULE] = score
        return found

    def scan(self, text: str) -> list[Finding]:
        """See `fulmen_safety.detector.Detector.scan`."""
        return [
            Finding(self.name, CATEGORY, score, 0, len(text), label)
            for label, score in self.rule_scores(text).items()
            if score >= self._floor
        ]

    def scores(self, text: str) -> Mapping[str, float]:
        """See `fulmen_safety.detector.Scorer.scores`. Of a trained scorer a probability; of rules alone the worst one's
        score, which is none.
        """
        found = self.rule_scores(text)
        return {CATEGORY: found.get(SCORER_RULE, max(found.values(), default=0.0))}


def make(settings: Mapping[str, Any]) -> QualityDetector:
    """Make the detector from its settings.

    Raises:
        UserError: an unknown key or rule, or a scorer that cannot be read.
    """
    where = "the settings of the detector 'quality'"
    read = read_settings(Settings, settings, where)
    known = rule_names()
    for rule in (*(read.rules or ()), *read.without):
        if rule not in known:
            raise UserError(
                f"there is no rule {rule!r} of quality",
                where=where,
                remedy=remedy_for_unknown(rule, known, kind="rules"),
            )
    rules = frozenset(known if read.rules is None else read.rules) - frozenset(read.without)
    return QualityDetector(rules, Scorer.load(Path(read.scorer)) if read.scorer else None, read.floor)
