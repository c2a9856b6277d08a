"""The assembled view: Chinese characters that were written as their parts put together again, 火乍弓单 -> 炸弹."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from fulmen_safety import disguise_tables as tables
from fulmen_safety.normalise.view import Edit, View, edited


def assembled(base: View) -> View | None:
    """Return the view of `base` with split characters assembled, or None if nothing says that there are any.

    Single pairs of characters are found in ordinary text (女子, 日月). The signs are a part that does not stand
    alone (亻, 讠), or two split characters one after the other.
    """
    if base.text.isascii() or not _sign().search(base.text):
        return None
    ways, text = _ways(), base.text
    edits: list[Edit] = []
    convinced = False
    for match in _parts().finditer(text):
        place, stop, last = match.start(), match.end(), -1
        while place < stop - 1:
            for length in (3, 2):
                way = text[place : place + length]
                if way in ways and place + length <= stop:
                    convinced = convinced or last == place or bool(_BARE.search(way))
                    edits.append(Edit(place, place + length, ways[way]))
                    place = last = place + length
                    break
            else:
                place += 1
    return edited(base, "assembled", edits) if convinced else None


#: Forms of radicals that are written within characters only.
_BARE = re.compile("[\u2e80-\u2fdf亻氵扌讠钅忄纟饣犭礻衤艹辶刂攵冫廴阝丬彳彡灬爫罒罓疒宀冖勹匚凵囗]")


@cache
def _ways() -> Mapping[str, str]:
    """Return parts -> character, without ways that are common words themselves."""
    ways = {way: char for char, listed in tables.components().items() for way in listed}
    for word, _, _ in tables.chinese_words():
        ways.pop(word, None)
    return ways


@cache
def _parts() -> re.Pattern[str]:
    """Return what finds runs of characters that are parts."""
    return re.compile(f"[{_class(''.join(_ways()))}]{{2,}}")


@cache
def _sign() -> re.Pattern[str]:
    """Return a cheap search that finds something wherever there is a sign."""
    firsts = _class("".join(way[0] for way in _ways()))
    others = _class("".join(way[1:] for way in _ways()))
    return re.compile(f"{_BARE.pattern}|[{firsts}][{others}]{{1,2}}[{firsts}][{others}]")


def _class(chars: str) -> str:
    return "".join(sorted(set(chars)))
