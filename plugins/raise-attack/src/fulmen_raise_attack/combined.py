"""The detector ``attack`` as it is shipped: the lexicon's signs and a learned model, weighed together.

Either may be right where the other sees nothing: signs are exact and few, the model knows how attacks sound. They are
combined as independent evidence, ``1 - (1 - sign) * (1 - heard)``. Below even odds the model has heard nothing; what is
left then only keeps texts in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fulmen_raise_attack.detector import AttackDetector, AttackSettings
from fulmen_safety import Finding
from fulmen_safety.learned.artefact import read
from fulmen_safety.learned.loading import shipped
from fulmen_safety.learned.window_detector import WindowDetector
from fulmen_safety.settings import Field, read_settings


class CombinedSettings(AttackSettings):
    """Settings of the detector ``attack``; the lexicon's are those of `AttackSettings`.

    Args:
        learned: how much the model counts, from 0 (the lexicon alone) to 1.
        model: folder written by `fulmen raise train`; default: the model that the plugin ships.
    """

    learned: float = Field(0.9, ge=0.0, le=1.0)
    model: Path | None = None


def make(settings: Mapping[str, object]) -> AttackDetector | CombinedDetector:
    """Make the detector. Raises `UserError` for a setting that it does not know."""
    given = read_settings(CombinedSettings, settings, "the settings of the detector 'attack'")
    lexicon = AttackDetector(AttackSettings(**{name: getattr(given, name) for name in AttackSettings.model_fields}))
    if given.learned == 0:
        return lexicon
    model = read(given.model) if given.model else shipped("fulmen_raise_attack", "attack")
    window = WindowDetector("attack", model, floor=1e-9, reads_plain=given.model is None)
    return CombinedDetector(lexicon, window, given.learned, given.floor)


class CombinedDetector:
    """Scores prompt attacks by both. Judges whole texts; a `Scorer` and `PlainReader` of `fulmen_safety.detector`."""

    name = "attack"

    def __init__(self, lexicon: AttackDetector, model: WindowDetector, learned: float, floor: float) -> None:
        self.reads_plain = model.reads_plain
        self._lexicon, self._model, self._learned, self._floor = lexicon, model, learned, floor

    def scan(self, text: str) -> list[Finding]:
        """Return what the lexicon finds, and the worst stretch of sentences, with the scores combined."""
        signs = list(self._lexicon.scan(text))
        worst = max(self._model.scan(text), key=lambda one: one.score, default=None)
        if worst is None:
            return signs
        found, heard = [], self._heard(worst.score)
        for one in signs:
            near = one.start < worst.end and worst.start < one.end
            score = 1 - (1 - one.score) * (1 - heard) if near else one.score
            found.append(Finding(self.name, one.category, score, one.start, one.end, one.label))
        if heard >= self._floor:
            found.append(Finding(self.name, "prompt_attack", heard, worst.start, worst.end, "learned"))
        return found

    def scores(self, text: str) -> dict[str, float]:
        """Return the combined score of `text`."""
        sign = max((one.score for one in self._lexicon.scan(text)), default=0.0)
        heard = self._heard(self._model.scores(text)["prompt_attack"])
        return {"prompt_attack": 1 - (1 - sign) * (1 - heard)}

    def _heard(self, probability: float) -> float:
        return self._learned * max(2 * probability - 1, 0.02 * probability)
