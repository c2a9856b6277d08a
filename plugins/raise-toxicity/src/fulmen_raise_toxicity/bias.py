"""The detector ``bias``: sentences that say of a protected group what is said of all of it and is no fact, the kind of
generalisation that an answer should not make. In English and Chinese, by words.

A group's name directly followed by what generalises and by a trait (``women are naturally irrational``) or by a verdict
(``… should not vote``) is reported; not so a group of particular people (``the two women are …``), nor a sentence that
tells of such a judgement, asks or denies it. What it has no words for it does not see. Off by default: name it in a
policy, and the policy's rule of ``hate_discrimination`` decides.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from fulmen_safety import Finding
from fulmen_safety.pattern import NOTHING, Node, Pattern, chars, either, maybe, repeat, seq
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.settings import Table, read_settings
from fulmen_safety.terms import trie

CATEGORY = "hate_discrimination"

#: Characters before a finding in which its sentence may say that it only tells of a judgement.
CONTEXT = 96

_SCORE = 0.9
_SENTENCE_END = re.compile(r"[.!?。！？；;\n]")
_LETTER = chars("0-9A-Za-z")
_GAP = repeat(chars(" "), 1, 2)

Lists = Mapping[str, Sequence[str]]


class BiasSettings(Table):
    """Settings of the detector ``bias``: none."""


def make(settings: Mapping[str, object]) -> BiasDetector:
    """Make the detector. Raises `UserError` for a setting, as it has none."""
    read_settings(BiasSettings, settings, "the settings of the detector 'bias'")
    return BiasDetector()


class BiasDetector:
    """Finds stereotypes. Streams exactly: what is held back is what may still become one."""

    name = "bias"

    def __init__(self) -> None:
        lists = _lists()
        patterns = [_pattern("en", lists["en"], _GAP, _LETTER), _pattern("zh", lists["zh"], NOTHING, NOTHING)]
        self._patterns = PatternDetector(self.name, CATEGORY, patterns)
        self._told = re.compile("|".join(_told(lists[one], one) for one in ("en", "zh")), re.IGNORECASE)
        self.look_behind = self._patterns.look_behind + CONTEXT

    def highest_scores(self) -> dict[str, float]:
        """Return the score of every finding; see `fulmen_safety.detector.Bounded`."""
        return {CATEGORY: _SCORE}

    def scan(self, text: str) -> list[Finding]:
        """Return the stereotypes in `text`."""
        return [one for one in self._patterns.scan(text) if not self._told.search(_before(text, one.start))]

    def hold_from(self, text: str) -> int:
        """Return the index from which `text` might still become one."""
        return self._patterns.hold_from(text)


@cache
def _lists() -> Mapping[str, Lists]:
    return tomllib.loads((resources.files("fulmen_raise_toxicity") / "data/bias.toml").read_text("utf-8"))


def _before(text: str, start: int) -> str:
    """Return the part of the finding's sentence that stands before it, as far as it may count."""
    return _SENTENCE_END.split(text[max(0, start - CONTEXT) : start])[-1]


def _told(lists: Lists, language: str) -> str:
    """Return what, before a group, says that its sentence tells of a judgement, or that particular people are meant."""
    distanced = "|".join(re.escape(word) for word in lists["distanced"])
    specific = "|".join(re.escape(word) for word in lists["specific"])
    if language == "zh":
        return rf"{distanced}|(?:{specific})\Z"
    return rf"(?<![a-z])(?:{distanced})(?![a-z])|n['’]t\b|[\"“]|(?<![a-z])(?:{specific})[ ]+\Z"


def _pattern(language: str, lists: Lists, gap: Node, letter: Node) -> Pattern:
    told = seq(trie(lists["links"]), gap, trie(lists["traits"]))
    body = seq(trie(lists["groups"]), gap, either(told, trie(lists["verdicts"])))
    denied = seq(repeat(chars(" ,.\"'”’」—-"), 0, 2), maybe(chars(" ")), trie(lists["denied"]))
    return Pattern(
        label=f"stereotype {language}",
        body=body,
        anchor=f"[{''.join(sorted({form for one in lists['groups'] for form in (one[0], one[0].upper())}))}]",
        not_before=(letter,) if letter.longest else (),
        not_after=either(letter, denied) if letter.longest else denied,
        accept=_certainty,
    )


def _certainty(_: str) -> float:
    return _SCORE
