"""The pinyin view: Chinese that is spelled in Latin letters, wholly or here and there: ``zhi zuo zha dan``, ``炸dan``,
``炸d``.

A small input method: over each stretch of syllables and the Han characters around it the cheapest sequence of common
words is found (Viterbi; a word costs the logarithm of its rarity). Bounded: words have up to four syllables, a
syllable up to six letters, and a stretch is cut after `MOST_CHARACTERS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache

from fulmen_safety import disguise_tables as tables
from fulmen_safety.normalise.letters import words_of
from fulmen_safety.normalise.view import Edit, View, edited

MOST_CHARACTERS = 400

_HAN = "\u4e00-\u9fff"
#: A Latin word directly beside a Han character. Words in capitals are names of things: A股, CPU.
_GLUED = re.compile(f"[{_HAN}][a-z]|[a-z][{_HAN}]")
#: Latin words with what may stand between the syllables of one word, and Han characters that may complete them.
_STRETCH = re.compile(f"[{_HAN}]{{0,3}}[A-Za-z]+(?:[ '-]?[{_HAN}]{{0,3}}[A-Za-z]+)*[{_HAN}]{{0,3}}")
_LATIN = re.compile("[A-Za-z]+")
_PART = re.compile(f"[A-Za-z]+|[{_HAN}]|[ '-]")
#: Words of one or two letters that English has too.
_SHORT_WORDS = frozenset(
    re.findall(
        "[a-z]+", "a ah am an as at be by do eh go ha he hi i if in is it me my no of oh ok on or so to up us we"
    )
)
_SIGNS = ",.!?;:，。！？；：\"'"
_LONGEST = 48  # letters of a word
_SYLLABLES_IN_A_ROW = 4  # in text without Han characters, where fewer may be a name
_LETTERS_A_SYLLABLE = 2.4  # on average, at least; of Western words that can be read as syllables most have fewer

_RAREST = 26.0  # cost of a word: this less the logarithm to base 2 of its count
_SYLLABLE = 16.0  # cost of a syllable on its own, read as its most frequent character
_WRITTEN = 8.0  # cost of a Han character on its own
_LETTER = 40.0  # cost of a letter that is left as it stands


def from_pinyin(base: View) -> View | None:
    """Return the view of `base` with pinyin read as Chinese, or None if nothing says that there is any."""
    text = base.text
    if (text.isascii() or not _GLUED.search(text)) and not _may_be_spelled_out(text):
        return None
    edits = [
        edit
        for match in _STRETCH.finditer(text)
        for start, stop in _pieces(match.start(), match.end())
        for edit in _read(text, start, stop)
    ]
    return edited(base, "pinyin", edits) if edits else None


def _may_be_spelled_out(text: str) -> bool:
    """Whether words that are syllables and no English words stand in a row, but for English ones that are syllables."""
    unknown = {word for word in words_of(text) - _SHORT_WORDS if _length(word)}
    if sum(map(_length, unknown)) < _SYLLABLES_IN_A_ROW - 1:
        return False
    if not any(len(word) >= _LETTERS_A_SYLLABLE * _length(word) for word in unknown):
        return False  # what no word reaches, no row reaches on average
    words = [word.strip(_SIGNS) for word in text.lower().split()]
    in_a_row = after = 0
    for place in [place for place, word in enumerate(words) if word in unknown]:
        if not all(map(_length, words[after:place])):
            in_a_row = 0
        in_a_row += _length(words[place])
        if in_a_row >= _SYLLABLES_IN_A_ROW - 1:
            return True
        after = place + 1
    return False


@lru_cache(4096)
def _length(word: str) -> int:
    """Return the fewest syllables that a word in pinyin can have, 0 if it is none."""
    letters = word.strip(_SIGNS)
    if not 0 < len(letters) <= _LONGEST:
        return 0
    syllables, unread = tables.syllables(), len(letters) + 1
    fewest = [0] + [unread] * len(letters)
    for end in range(1, len(letters) + 1):
        for start in range(max(0, end - 6), end):
            if fewest[start] + 1 < fewest[end] and letters[start:end] in syllables:
                fewest[end] = fewest[start] + 1
    return fewest[-1] if fewest[-1] < unread else 0


def _pieces(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, MOST_CHARACTERS):
        yield first, min(stop, first + MOST_CHARACTERS)


def _read(text: str, start: int, stop: int) -> Iterator[Edit]:
    """Yield the edits of one stretch: of each part of it without other Latin words, if it is pinyin."""
    part_start, last = start, start
    syllables = letters = 0
    glued = latin = False

    def convinced() -> bool:
        return glued or (syllables >= _SYLLABLES_IN_A_ROW and letters >= _LETTERS_A_SYLLABLE * syllables)

    for match in _PART.finditer(text, start, stop):
        word = match[0]
        if word[0].isascii() and word.isalpha():
            beside = _is_han(text, match.start() - 1) or _is_han(text, match.end())
            length = _length(word.lower()) or (1 if beside and len(word) <= 2 and word.islower() else 0)
            if not length:
                if latin and convinced():
                    yield from _decoded(text, part_start, last)
                part_start = last = match.end()
                syllables = letters = 0
                glued = latin = False
                continue
            latin = True
            if word.lower() not in tables.english_words() and word.lower() not in _SHORT_WORDS:
                syllables += length
                letters += len(word)
            glued = glued or (beside and not word.isupper())
        last = match.end()
    if latin and convinced():
        yield from _decoded(text, part_start, last)


def _is_han(text: str, index: int) -> bool:
    return 0 <= index < len(text) and "\u4e00" <= text[index] <= "\u9fff"


def _decoded(text: str, start: int, stop: int) -> Iterator[Edit]:
    """Yield the edits of the cheapest reading of ``text[start:stop]``."""
    written = text[start:stop].lower()
    if len(written) != stop - start:
        return
    end = len(written)
    best: list[tuple[float, int, str | None]] = [(0.0, -1, None), *[(float("inf"), -1, None)] * end]
    for place in range(end):
        cost = best[place][0]
        for length, reading, price in _steps(written, place):
            if cost + price < best[place + length][0]:
                best[place + length] = (cost + price, place, reading)
    edits: list[Edit] = []
    place = end
    while place > 0:
        _, before, reading = best[place]
        if reading is not None and written[before:place] != reading:
            edits.append(Edit(start + before, start + place, reading))
        place = before
    yield from reversed(edits)


def _steps(written: str, place: int) -> Iterator[tuple[int, str | None, float]]:
    """Yield what may be read at `place`: the number of characters, what they say (None: themselves), and the cost."""
    char = written[place]
    if char in " '-":
        yield 1, "", 0.0
        return
    if char > "\x7f":
        yield 1, None, _WRITTEN
    else:
        yield 1, None, _LETTER
        for length in range(1, 7):
            chars = tables.syllables().get(written[place : place + length])
            if chars and place + length <= len(written):
                yield length, chars[0], _SYLLABLE
    for size in range(2, min(4, len(written) - place) + 1):
        if found := _abbreviated().get(written[place : place + size]):
            yield size, found[0], _RAREST - found[1]
    yield from _words_at(written, place, place, "", "")


def _words_at(written: str, place: int, at: int, spelled: str, fixed: str) -> Iterator[tuple[int, str, float]]:
    """Yield the words that begin at `place`, of which ``written[place:at]`` spells the syllables `spelled`.

    `fixed` has a character for each syllable: the Han character that stands there, or a blank.
    """
    words, prefixes = _words()
    if at > place and at < len(written) and written[at] in " '-":
        at += 1
    units: list[tuple[int, str, str]] = []
    if at < len(written) and written[at] > "\x7f":
        if syllable := tables.readings().get(written[at]):
            units.append((1, syllable, written[at]))
    else:
        units += [
            (length, syllable, " ")
            for length in range(1, 7)
            if (syllable := written[at : at + length]) in tables.syllables() and len(syllable) == length
        ]
    for length, syllable, char in units:
        longer = f"{spelled} {syllable}" if spelled else syllable
        known = fixed + char
        if " " in known:  # Han characters alone need no reading
            for word, step in words.get(longer, ()):
                if all(there in (" ", meant) for there, meant in zip(known, word, strict=True)):
                    yield at + length - place, word, _RAREST - step
                    break
        if longer in prefixes:
            yield from _words_at(written, place, at + length, longer, known)


@cache
def _words() -> tuple[Mapping[str, list[tuple[str, int]]], frozenset[str]]:
    """Return syllables -> words and the logarithms of their counts, the most frequent first; and all beginnings."""
    words: dict[str, list[tuple[str, int]]] = {}
    prefixes: set[str] = set()
    for word, spelled, step in tables.chinese_words():
        words.setdefault(" ".join(spelled), []).append((word, step))
        prefixes.update(" ".join(spelled[:length]) for length in range(1, len(spelled)))
    return words, frozenset(prefixes)


@cache
def _abbreviated() -> Mapping[str, tuple[str, int]]:
    """Return word with one character as its first letter -> the most frequent such word and its count's logarithm."""
    found: dict[str, tuple[str, int]] = {}
    for word, spelled, step in tables.chinese_words():
        for place, syllable in enumerate(spelled):
            found.setdefault(word[:place] + syllable[0] + word[place + 1 :], (word, step))
    return found
