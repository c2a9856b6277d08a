"""The joined view: spaced-out words without their separators, ``i g n o r e``, ``1-3-8-0``, ``s k - l i v e``.

A separator goes if a lone letter, digit, dot or at sign stands on each side of it, and the same holds of the separator
before or after: three lone characters in a row are a word spelled out, two are 3.2 or a.m. Soon after such a word two
will do, for the short words among the long ones. A sign that keys are made of is a lone character too between blanks,
after two of the others: ``a - b`` is no word. At the end of an unfinished text the view stops where that is open.
"""

from __future__ import annotations

import re

from fulmen_safety.normalise.view import Edit, View, edited

_WORD = "0-9A-Za-z\u3400-\u9fff"
_LONE = _WORD + "@."  # what may stand alone between separators; the dot and the at sign belong to addresses
_SIGN = r"_\-:+/=~"
_SEPARATOR = r" .\-_*|/~·"
_LONE_BEFORE = f"[{_SEPARATOR}](?<=[{_LONE}][{_SEPARATOR}])(?<![{_WORD}][{_LONE}][{_SEPARATOR}])"
_LONE_AFTER = f"(?=[{_LONE}](?![{_WORD}]))"
_JOINT = re.compile(_LONE_BEFORE + _LONE_AFTER)
_SIGN_BEFORE = f" (?<= [{_SIGN}] )"
_SIGN_JOINT = re.compile(f"{_SIGN_BEFORE}(?:{_LONE_AFTER}|(?=[{_SIGN}] ))|(?= ){_LONE_BEFORE}(?=[{_SIGN}] )")
_OPEN = re.compile(f"{_LONE_BEFORE}[{_LONE}]?\\Z")
_SIGN_OPEN = re.compile(f"(?:{_LONE_BEFORE}|{_SIGN_BEFORE})[{_LONE}{_SIGN}]?\\Z")

#: Characters after a spelled-out word within which two lone characters are one too.
_SOON = 24
#: Characters around a place that may decide whether it is joined.
REACH = _SOON + 8


def join(base: View, *, final: bool = True) -> View | None:
    """Return the joined view of the folded one, or None if it shows nothing else and nothing is open."""
    text, length = base.text, len(base.text)
    plain = [match.start() for match in _JOINT.finditer(text)]
    # a word spelled out begins with two characters that are no signs: without those there is none
    signs = [match.start() for match in _SIGN_JOINT.finditer(text, plain[0])] if plain else []
    undecided = _SIGN_OPEN if plain else _OPEN
    ends = () if final else (place for place in (length - 2, length - 1) if place > 0)
    waiting = {place for place in ends if undecided.match(text, place)}
    stop = min(waiting, default=None)
    begins, places = {*plain} - waiting, {*plain, *signs} - waiting
    joints: list[Edit] = []
    spelled = -_SOON  # where the last spelled-out word was
    for place in sorted(places):
        if (place in begins and place + 2 in places) or place - 2 in begins:
            spelled = place
        elif place - spelled >= _SOON:
            if place + 2 in waiting:
                stop = place
                break
            continue
        joints.append(Edit(place, place + 1, ""))
    if not joints and stop is None:
        return None
    return edited(base, "joined", joints, stop=stop)
