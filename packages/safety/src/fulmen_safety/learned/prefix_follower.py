"""A stream read by a learned model as it grows: running sums give the sum of any window, a few additions a character.

What surely gives no finding, which is nearly all, is told apart here from what may give one; that is left to the
detector's own `scan`. So what is found is what the detector finds, down to the last bit.

Sums and counts are of the features that end at or before an index, as in `LinearModel.sums`, and of head 0 alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from fulmen_core.guard import Finding
from fulmen_safety.language import LANGUAGES, language_of
from fulmen_safety.learned.calibration import Curve
from fulmen_safety.learned.features import CHARACTER_NGRAMS, LONGEST_WORD, WIDEST_GAP
from fulmen_safety.learned.linear_model import LinearModel
from fulmen_safety.learned.place_features import (
    ASCII_LETTERS,
    PAIR_SALT,
    SKIP_SALT,
    folded,
    is_letter,
    is_lone,
    ngram_hashes,
    pair_hash,
    word_hash,
)

if TYPE_CHECKING:
    from fulmen_safety.learned.prefix_detector import PrefixDetector

_LONGEST_NGRAM = max(CHARACTER_NGRAMS)
#: Runs of characters, and words, of which the weight is remembered.
_REMEMBERED = 1 << 15
#: A margin so little below another may be above it: sums are rounded in another order here.
_ROUNDING = 1e-6
#: A unit that begins further behind the one before, as after a long run of letters, is judged as if there were none:
#: otherwise what is found would hang on text at any distance.
WIDEST_STEP = 2 * LONGEST_WORD
#: Beyond it a `Curve` is flat.
_STEEPEST = 30.0


class PlaceWeights:
    """How much weighs what ends at one place. Shared by the streams of a detector; nearly all has ended elsewhere
    before, and is remembered.
    """

    def __init__(self, model: LinearModel) -> None:
        weights = memoryview(model.weights_B.tobytes()).cast("b")
        self.scale, self.bias = float(model.scale_H[0]), float(model.bias_H[0])
        curves = {language: model.curve(language) for language in LANGUAGES}
        self.least_margins = lru_cache(16)(partial(_least_margins, curves))
        self.ngrams = lru_cache(_REMEMBERED)(partial(_ngrams, weights, model.shift))
        self.word = lru_cache(_REMEMBERED)(partial(_word, weights, model.shift))
        self.pair = partial(_pair, weights, model.shift)


def _ngrams(weights: memoryview, shift: int, characters: str) -> int:
    """Return the weight of the n-grams that end with `characters`, which are as many as the longest has."""
    return sum(weights[one >> shift] for one in ngram_hashes(characters))


def _word(weights: memoryview, shift: int, letters: str) -> tuple[int, int]:
    """Return what pairs with the word are hashed from, and its own weight."""
    inner, own = word_hash(letters)
    return inner, weights[own >> shift]


def _pair(weights: memoryview, shift: int, first: int, second: int, salt: int) -> int:
    """Return the weight of two words."""
    return weights[pair_hash(first, second, salt) >> shift]


class PrefixFollower:
    """Reads one stream for one detector (`fulmen_safety.detector.Follower`).

    Args:
        least: probability that a finding has at least.
    """

    def __init__(self, detector: PrefixDetector, weights: PlaceWeights, window: int, least: float) -> None:
        self._detector, self._weights, self._window = detector, weights, window
        self._least_margins = weights.least_margins(least)
        self._restart()

    def _restart(self) -> None:
        self._text = self._folded = ""
        self._sums, self._counts = [0], [0]
        self._run = 0  # where the run of letters starts that the text ends with; its length if there is none
        self._words: list[tuple[int, int, int]] = []  # the last two: start, end, what pairs are hashed from
        self._han = -1  # the last Han character
        self._before = (-math.inf, "")  # margin and language after the unit before
        self._before_end = 0
        self._suspects: list[
            int
        ] = []  # starts of units with which the probability may rise to the least one or above it

    def read(self, text: str, dropped: int, since: int) -> tuple[Sequence[Finding], int]:
        """Return the settled findings at `since` or later, and where the word being written starts."""
        if dropped and self._text:
            self._forget(dropped)
        if not text.startswith(self._text):
            self._restart()
        if not self._text and (hold := self._detector.hold_from(text)) <= since:
            return [], hold  # there is nothing to settle, and perhaps never will be: some views are of a moment
        self._extend(text)
        hold = self._run if len(text) - self._run <= LONGEST_WORD else len(text)
        if self._suspects:
            self._suspects = [start for start in self._suspects if start >= since]
        if not self._suspects or self._suspects[0] >= hold:
            return [], hold
        cut = max(0, since - self._detector.look_behind)
        found = self._detector.scan(text[cut:])
        return [
            replace(one, start=one.start + cut, end=one.end + cut) for one in found if since <= one.start + cut < hold
        ], hold

    def _forget(self, dropped: int) -> None:
        self._text, self._folded = self._text[dropped:], self._folded[dropped:]
        del self._sums[:dropped], self._counts[:dropped]
        self._run, self._han = self._run - dropped, self._han - dropped
        self._before_end -= dropped
        self._words = [(start - dropped, end - dropped, inner) for start, end, inner in self._words]
        self._suspects = [start - dropped for start in self._suspects]

    def _extend(self, text: str) -> None:
        """Take in what is new in `text`."""
        done = len(self._text)
        self._text = text
        characters = self._folded = self._folded + folded(text[done:])
        sums, counts, ngrams = self._sums, self._counts, self._weights.ngrams
        for place in range(done, len(text)):
            char = text[place]
            letter = char in ASCII_LETTERS if char < "\x80" else is_letter(char)
            if not letter:
                if self._run < place:
                    self._end_word(place)
                self._run = place + 1
            first = max(0, place + 1 - _LONGEST_NGRAM)
            sums.append(sums[-1] + ngrams(characters[first : place + 1]))
            counts.append(counts[-1] + place + 1 - first)
            if not letter and is_lone(char):
                if language_of(char) == "zh":
                    self._han = place
                self._judge(place, place + 1)

    def _end_word(self, end: int) -> None:
        start = self._run
        if end - start > LONGEST_WORD:
            return
        weights, words = self._weights, self._words
        inner, weight = weights.word(self._folded[start:end])
        count = 1
        if words and start - words[-1][1] <= WIDEST_GAP:
            weight += weights.pair(words[-1][2], inner, PAIR_SALT)
            count += 1
            if len(words) > 1 and words[-1][0] - words[-2][1] <= WIDEST_GAP:
                weight += weights.pair(words[-2][2], inner, SKIP_SALT)
                count += 1
        self._words = [*words[-1:], (start, end, inner)]
        self._sums[-1] += weight
        self._counts[-1] += count
        self._judge(start, end)

    def _judge(self, start: int, end: int) -> None:
        """A unit has ended, and the text with it: see whether the probability may have risen far enough."""
        begin = max(0, end - self._window)
        language = "zh" if self._han >= begin else "en"
        total, count = self._sums[end] - self._sums[begin], self._counts[end] - self._counts[begin]
        margin = total * self._weights.scale / math.sqrt(max(count, 1)) + self._weights.bias
        near = start - self._before_end <= WIDEST_STEP
        before, before_language = self._before if near else (-math.inf, "")
        rises = margin > before - _ROUNDING or language != before_language
        if rises and margin > self._least_margins[language] - _ROUNDING:
            self._suspects.append(start)
        self._before, self._before_end = (margin, language), end


def _least_margins(curves: Mapping[str, Curve], least: float) -> dict[str, float]:
    return {language: _least_margin(curve, least) for language, curve in curves.items()}


def _least_margin(curve: Curve, floor: float) -> float:
    """Return a margin that the probability is below `floor` for, if the margin is below it."""
    if curve.slope <= 0.0:
        return -math.inf
    logit = math.log(floor / (1.0 - floor)) if floor < 1.0 else math.inf
    return -math.inf if logit <= -_STEEPEST else (min(logit, _STEEPEST) - curve.offset) / curve.slope
