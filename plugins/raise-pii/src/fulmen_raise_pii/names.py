"""The detector ``pii-names``: names, addresses, places, organisations and the like, which have no form of their own.

English (and other text in Latin letters) is read by a learned tagger, `fulmen_raise_pii.tagger`; Chinese names by their
surname and what announces them. Both streams: what may still change is held, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from fulmen_raise_pii.chinese_names import chinese_name
from fulmen_raise_pii.replacement import Replacement, ReplacementSettings
from fulmen_raise_pii.tagger.decode import CHANNEL, LONGEST_ISLAND, decode, islands, runs
from fulmen_raise_pii.tagger.emissions import REACH, Emissions
from fulmen_raise_pii.tagger.tokens import LONGEST_BLANK, LONGEST_STEP, Block, blocks
from fulmen_raise_pii.tagger.weights import Tagger, load
from fulmen_safety import Finding
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.settings import Field, read_settings

Kind = Literal[
    "person", "address", "location", "organization", "date", "age", "title", "nationality", "driver_license", "phone"
]

#: What is looked for by default: what names a person or a home by itself.
DEFAULT_KINDS: tuple[Kind, ...] = ("person", "address", "driver_license", "phone")


class NamesSettings(ReplacementSettings):
    """Settings of the detector ``pii-names``; how to replace what is found: see `ReplacementSettings`.

    Args:
        kinds: what to look for. Beyond the default ones are what tells about a person only together with other things.
        allow: names to let pass, in any case.
    """

    kinds: tuple[Kind, ...] = Field(DEFAULT_KINDS, min_length=1)
    allow: tuple[str, ...] = ()


def make(settings: Mapping[str, object]) -> NamesDetector:
    """Make the detector. Raises `UserError` for a setting that it does not know."""
    return NamesDetector(read_settings(NamesSettings, settings, "the settings of the detector 'pii-names'"))


class NamesDetector:
    """Names in English and Chinese text. Keeps both laws of `fulmen_safety.detector`."""

    name = "pii-names"

    #: An island, the words around it that decide where it ends, the words that these see, and a barrier before them.
    look_behind = (LONGEST_ISLAND + 2 * CHANNEL + 2 * REACH + 2) * LONGEST_STEP

    def __init__(self, settings: NamesSettings, tagger: Tagger | None = None) -> None:
        """Make it with the tagger of the package, or with another."""
        self.kinds: tuple[str, ...] = settings.kinds
        self._allowed = frozenset(value.casefold() for value in settings.allow)
        self._tagger = tagger or load()
        self._emissions = Emissions(self._tagger.features, self._tagger.gazetteer)
        self._chinese = PatternDetector(self.name, "privacy_pii", chinese_name() if "person" in self.kinds else [])
        self._replacement = Replacement(settings)

    def scan(self, text: str) -> list[Finding]:
        """Return the findings in `text`."""
        found = list(self._tagged(list(blocks(text))))
        if not text.isascii():
            found += self._chinese.scan(text)
        return [one for one in found if text[one.start : one.end].casefold() not in self._allowed]

    def hold_from(self, text: str) -> int:
        """Return where the island begins that the end of `text` may still belong to."""
        hold = len(text) if text.isascii() else self._chinese.hold_from(text)
        start = max(0, len(text) - self.look_behind)
        seen = list(blocks(text[start:]))
        if not seen:
            return hold
        last = seen[-1]
        beyond = text[start + last.ends[-1] :]
        if len(beyond) > LONGEST_BLANK or beyond.strip():
            return hold  # a barrier has ended the block
        first = self._open_from(last.words[-_ENOUGH:])
        if first < 0:  # an island without a beginning in sight
            *_, last = blocks(text)
            return min(hold, last.starts[self._open_from(last.words, whole=True)])
        return min(hold, start + last.starts[max(0, len(last.words) - _ENOUGH) + first])

    def _open_from(self, words: Sequence[str], *, whole: bool = False) -> int:
        """Return the first token whose label may still change at the end of an unfinished block.

        Args:
            words: the last ones of the block.
            whole: whether they are all. If not, -1 says that they are too few to tell.
        """
        sure = len(words) - 1 - REACH  # tokens before this see all that they ever will; the last may still grow
        if sure <= 0:
            return 0
        scores_TL = self._emissions.scores(words)[:sure]
        *_, (first, end) = [(0, 0), *islands(scores_TL, self._tagger.margin)]
        if not end or end <= sure - CHANNEL:
            return sure
        if len(words) == _ENOUGH and not whole and first <= REACH + CHANNEL:
            return -1
        if end - first <= LONGEST_ISLAND:
            return first
        *_, (begun, ended, _) = [(0, 0, 0), *runs(scores_TL[first:end].argmax(axis=1).tolist())]
        return first + begun if first + ended == sure else sure

    def _tagged(self, found: Sequence[Block]) -> Iterator[Finding]:
        """Yield what the tagger finds in blocks. Those of up to three marks, as there are many in Chinese, have
        nothing."""
        worded = [block for block in found if len(block.words) > REACH or any(map(str.isalnum, block.words))]
        if not worded:
            return
        tagger = self._tagger
        for block, scores_TL in zip(worded, self._emissions.scores_of([one.words for one in worded]), strict=True):
            for first, end, kind in decode(scores_TL, tagger.moves, tagger.margin):
                while first < end and block.words[first] in _NO_START:
                    first += 1
                while first < end and block.words[end - 1] in _NO_END:
                    end -= 1
                label = tagger.kinds[kind].removesuffix("_part")
                if first < end and label in self.kinds:
                    start, stop = block.starts[first], block.ends[end - 1]
                    yield Finding(self.name, "privacy_pii", tagger.precision[kind], start, stop, label)

    def replacement(self, found: str, finding: Finding) -> str:
        """Return ``[PERSON]`` and the like, the form of what was found, or a surrogate, as the settings say."""
        return self._replacement(found, finding.label)


#: So many tokens at the end of a text tell where its last island begins, unless that is too long to be decoded as one.
_ENOUGH = LONGEST_ISLAND + 2 * CHANNEL + 2 * REACH + 2

_NO_START = frozenset("\n,:;>?!") | {"\n\n"}
_NO_END = frozenset("\n,:;>?!(") | {"\n\n"}
