"""What is measured of a document. Every measure is a ratio or a mean, so that it means the same for short and long.

Sources: Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1), C4 (Raffel et al. 2020), FineWeb (Penedo et al.
2024, arXiv 2406.17557), StarCoder (Li et al. 2023, arXiv 2305.06161). Where they count words, characters are counted in
Chinese.
"""

from __future__ import annotations

import re
from collections import Counter

from fulmen_raise_quality.boilerplate import boilerplate_share
from fulmen_raise_quality.repetition import repetition
from fulmen_raise_quality.units import DEFECT, DIGIT, UPPER, Units

Measures = dict[str, float]

#: Words from which a ratio of words says something, and lines from which one of lines does.
_FEWEST_WORDS, _FEWEST_LINES = 50, 5
#: Chinese characters from which running text has some of the commonest ones.
_RUNNING_TEXT = 200

_BULLETS = ("•", "‣", "●", "■", "▪", "○", "·", "*", "- ", "– ", "— ")
_ENDS = tuple(".!?。！？…:：;；\"'”’」』）)】")
_PAUSES = (*_ENDS, ",", "，", "、")
_ELLIPSES = ("...", "…")
_STOP_EN = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
#: Of the modern language, then of the classical one.
_STOP_ZH = frozenset("的了是在不有人这我他和也就而之者以为其于所曰")
_LETTER = re.compile(r"[^\W\d_]")
#: UTF-8 read as Latin-1 or CP1252; UTF-8 and GBK read as each other.
_MISREAD = re.compile(
    "[ÃÂ][\x80-\xbf\u2013-\u2122]|â€[\x80-\xff\u0152-\u2122]|ï¿½|ï»¿|锟斤拷|烫烫|屯屯|锘[夸琪挎]|鈥[檚渢攕]"
)
_MISREAD_SIGNS = ("Ã", "Â", "â€", "ï¿½", "ï»¿", "锟", "烫烫", "屯屯", "锘", "鈥")
_GENERATED = re.compile(r"auto-?generated|generated (?:by|from)|do not (?:edit|modify)", re.IGNORECASE)
_SHORT = {"en": 30, "zh": 10}  # characters of a short line


def measures_of(units: Units) -> Measures:
    """Return every measure of a text that means something for its kind and its size."""
    found = {"garbled": _garbled(units)}
    return found | (_of_code(units) if units.kind == "code" else _of_prose(units))


def _of_prose(units: Units) -> Measures:
    text, words = units.text, len(units.hashes_W)
    found: Measures = {}
    if words >= _FEWEST_WORDS:
        solid = int(units.lengths_W.sum())
        found |= repetition(units)
        found["symbols"] = (text.count("#") + text.count("...") + text.count("…")) / words
        found["links"] = (text.count("http://") + text.count("https://") + text.count("www.")) / words
        found["exclamations"] = (text.count("!") + text.count("！")) / words
        found["digits"] = units.counts[DIGIT] / solid
        if units.kind == "en":
            found["capitals"] = units.counts[UPPER] / max(units.letters, 1)
            found["word_length"] = solid / words
            wordless = sum(1 for word in units.words if not word[0].isalpha() and not _LETTER.search(word))
            found["wordless"] = wordless / words
            found["stop_words"] = len(_STOP_EN.intersection(map(str.lower, units.words)))
        elif words >= _RUNNING_TEXT:
            found["stop_words"] = len(_STOP_ZH.intersection(text))
    if len(units.lines) >= _FEWEST_LINES:
        found |= _of_lines(units)
    if words >= _FEWEST_WORDS // 2:
        found["boilerplate"] = boilerplate_share(text, units.lines, units.kind)
    return found


def _of_code(units: Units) -> Measures:
    lengths = sorted(map(len, units.lines))
    return {
        # the median where StarCoder has the mean, which the paragraphs of a manual with examples would exceed
        "line_length": lengths[len(lengths) // 2],
        "longest_line": lengths[-1],
        "letters": units.letters / sum(lengths),
        "generated": float(any(_GENERATED.search(line[:200]) for line in units.lines[:5])),
    }


def _of_lines(units: Units) -> Measures:
    lines = units.lines
    count, characters = len(lines), sum(map(len, lines))
    short = _SHORT["zh" if units.kind == "zh" else "en"]
    repeated = [(line, times - 1) for line, times in Counter(lines).items() if times > 1]
    return {
        "bullet_lines": sum(line.startswith(_BULLETS) for line in lines) / count,
        "ellipsis_lines": sum(line.endswith(_ELLIPSES) for line in lines) / count,
        # a line of verse is short too, but ends like a clause
        "short_lines": sum(len(line) <= short and not line.endswith(_PAUSES) for line in lines) / count,
        "unended_lines": sum(not line.endswith(_ENDS) for line in lines) / count,
        "duplicate_lines": sum(times for _, times in repeated) / count,
        "duplicate_line_characters": sum(len(line) * times for line, times in repeated) / characters,
    }


def _garbled(units: Units) -> float:
    misread = 0
    if any(sign in units.text for sign in _MISREAD_SIGNS):
        misread = sum(len(found) for found in _MISREAD.findall(units.text))
    return (units.counts[DEFECT] + misread) / len(units.text)
