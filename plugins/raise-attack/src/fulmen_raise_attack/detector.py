"""The detector ``attack``: evidence from the lexicon, added up within a stretch of text.

Attacks are long and spread their signs (another self, no limits, no refusal), benign requests show one at most. So
signs of different families within a window of some sentences are combined, 1 - prod(1 - weight), and the best window
scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from fulmen_raise_attack.lexicon import Evidence, evidence, prepare
from fulmen_safety import Finding
from fulmen_safety.settings import Field, Table, read_settings


class AttackSettings(Table):
    """Settings of the detector ``attack``.

    Args:
        window: characters within which signs add up.
        floor: findings below this score are not reported at all; the policy's threshold decides among the others.
    """

    window: int = Field(1600, ge=100, le=20_000)
    floor: float = Field(0.3, gt=0.0, le=1.0)


def make(settings: Mapping[str, object]) -> AttackDetector:
    """Make the detector. Raises `UserError` for a setting that it does not know."""
    return AttackDetector(read_settings(AttackSettings, settings, "the settings of the detector 'attack'"))


class AttackDetector:
    """Scores prompt attacks. Judges whole texts: what comes later may add to what came before."""

    name = "attack"
    reads_plain = True

    def __init__(self, settings: AttackSettings) -> None:
        self._settings = settings
        prepare()  # now, not under the deadline of the first text

    def scan(self, text: str) -> list[Finding]:
        """Return disjoint stretches of text that look like an attack, each with its best window's score."""
        return self._stretches(list(evidence(text)))

    def _stretches(self, found: list[Evidence]) -> list[Finding]:
        """Slide a window over the evidence; merge overlapping windows that reach the floor."""
        found.sort(key=lambda one: (one.start, one.end))
        findings: list[Finding] = []
        last = 0
        for first, opening in enumerate(found):
            last = max(last, first)
            while last + 1 < len(found) and found[last + 1].end <= opening.start + self._settings.window:
                last += 1
            inside = found[first : last + 1]
            score, label = _combined(inside)
            if score < self._settings.floor:
                continue
            end = max(one.end for one in inside)
            if findings and opening.start < findings[-1].end:
                earlier = findings.pop()
                best = max(earlier, Finding(self.name, "prompt_attack", score, 0, 1, label), key=lambda one: one.score)
                findings.append(
                    Finding(self.name, "prompt_attack", best.score, earlier.start, max(end, earlier.end), best.label)
                )
            else:
                findings.append(Finding(self.name, "prompt_attack", score, opening.start, end, label))
        return findings


def _combined(inside: Sequence[Evidence]) -> tuple[float, str]:
    """Return 1 - prod(1 - weight) over the families, each with its weightiest rule, and the weightiest family's
    name.
    """
    weights: dict[str, float] = {}
    for one in inside:
        weights[one.family] = max(one.weight, weights.get(one.family, 0.0))
    label = max(weights, key=lambda family: weights[family])
    return 1 - prod(1 - weight for weight in weights.values()), label
