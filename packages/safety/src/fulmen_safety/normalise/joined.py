"""The joined view: spaced-out words without their separators, ``i g n o r e``, ``1-3-8-0``.

A separator goes if a lone letter, digit, dot or at sign stands on each side of it, and the same holds of the separator
before or after: three lone characters in a row are a word spelled out, two are 3.2 or a.m. Soon after such a word two
will do, for the short words among the long ones. At the end of an unfinished text the view stops where that is open.
"""

from __future__ import annotations

import re

from fulmen_safety.normalise.view import Edit, View, edited

_WORD = "0-9A-Za-z\u3400-\u9fff"
_LONE = _WORD + "@."  # what may stand alone between separators; the dot and the at sign belong to addresses
_SEPARATOR = r" .\-_*|/~·"
_LONE_BEFORE = f"[{_SEPARATOR}](?<=[{_LONE}][{_SEPARATOR}])(?<![{_WORD}][{_LONE}][{_SEPARATOR}])"
_JOINT = re.compile(f"{_LONE_BEFORE}(?=[{_LONE}](?![{_WORD}]))")
_OPEN = re.compile(f"{_LONE_BEFORE}[{_LONE}]?\\Z")


#: Characters after a spelled-out word within which two lone characters are one too.
_SOON = 24
#: Characters around a place that may decide whether it is joined.
REACH = _SOON + 8


#: Characters behind a separator that may decide whether it stands alone.
_AHEAD = 2


def joins(text: str, since: int) -> bool:
    """Return whether the joined view of an unfinished folded text shows something else, or waits, behind `since`.

    Args:
        since: an index before which it does not.
    """
    if _OPEN.search(text, max(0, len(text) - 2)):
        return True
    lone = {match.start() for match in _JOINT.finditer(text, max(0, since - 2 - 2 * _AHEAD))}
    return any(place + 2 in lone for place in lone)


def join(base: View, *, final: bool = True) -> View | None:
    """Return the joined view of the folded one, or None if it shows nothing else and nothing is open."""
    text = base.text
    undecided = None if final else _OPEN.search(text, max(0, len(text) - 2))
    stop = undecided.start() if undecided else None
    lone = [place for match in _JOINT.finditer(text) if (place := match.start()) != stop]
    places = set(lone)
    joints: list[Edit] = []
    spelled = -_SOON  # where the last spelled-out word was
    for place in lone:
        if place - 2 in places or place + 2 in places:
            spelled = place
        elif place - spelled >= _SOON:
            if place + 2 == stop:
                stop = place
            continue
        joints.append(Edit(place, place + 1, ""))
    if not joints and stop is None:
        return None
    return edited(base, "joined", joints, stop=stop)
