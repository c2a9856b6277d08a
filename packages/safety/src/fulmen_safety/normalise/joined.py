"""The joined views: spaced-out words without their separators, ``i g n o r e``, ``1-3-8-0``, ``s k - l i v e``.

A separator goes if a lone letter, digit, dot or at sign stands on each side of it, and the same holds of the separator
before or after: three lone characters in a row are a word spelled out, two are 3.2 or a.m. Soon after such a word two
will do, for the short words among the long ones. A letter beside a Han character stands alone, and Han characters
before and after such a word belong to it, for no blank tells where a word begins: 是蓝 鸟 计 划的. At the end of an
unfinished text a view stops where that is open.

Whether a lone sign is part of a word or stands between two, nobody can tell: ``k e y - A K I A``. So where there are
such signs, a second view joins them too: after two of the other lone characters, for ``a - b`` is no word.
"""

from __future__ import annotations

import re

from fulmen_safety.normalise.view import Edit, View, edited

_LATIN, _HAN = "0-9A-Za-z", "\u3400-\u9fff"
_LONE = f"{_LATIN}{_HAN}@."  # what may stand alone between separators; the dot and the at sign belong to addresses
_SIGNS = r"_\-:+/=~"
#: What may stand between the letters of a word that is spelled out: the inside of a class of characters.
SEPARATORS = r" .\-_*|/~·\n"
_LONE_BEFORE = f"[{SEPARATORS}](?<![{_LATIN}][{_LATIN}@.][{SEPARATORS}])(?<=[{_LONE}][{SEPARATORS}])"
_LONE_AFTER = f"(?=[{_LONE}])(?![{_LATIN}@.][{_LATIN}]|[{_HAN}@.][{_HAN}])"
_JOINT = re.compile(_LONE_BEFORE + _LONE_AFTER)
_LAST = re.compile(f"{_LONE_BEFORE}(?=[{_HAN}]{{2}})")
_OPEN = re.compile(f"{_LONE_BEFORE}[{_LONE}]?\\Z")


def _beside_sign() -> tuple[str, str]:
    """Return what matches a separator after a lone sign, and before one: the same stands on its other side."""
    pieces = [(re.escape(one), f"[{_SIGNS.replace(re.escape(one), '')}]") for one in " \n.-_*|/~·"]
    after = "|".join(f"{one}(?<={one}{sign}{one})" for one, sign in pieces)
    before = "|".join(f"{one}(?={sign}{one})" for one, sign in pieces)
    return f"(?:{after})", f"(?:{before})"


_AFTER_SIGN, _BEFORE_SIGN = _beside_sign()
_SIGN_JOINT = re.compile(f"{_AFTER_SIGN}{_LONE_AFTER}|(?=[{SEPARATORS}])(?={_LONE_BEFORE}|{_AFTER_SIGN}){_BEFORE_SIGN}")
_SIGN_OPEN = re.compile(f"(?:{_LONE_BEFORE}|{_AFTER_SIGN})[{_LONE}{_SIGNS}]?\\Z")

#: Characters after a spelled-out word within which two lone characters are one too.
_SOON = 24
#: Characters around a place that may decide whether it is joined.
REACH = _SOON + 8


#: Characters behind a separator that may decide whether it stands alone.
_AHEAD = 2


def joins(text: str, since: int) -> bool:
    """Return whether a joined view of an unfinished folded text shows something else, or waits, behind `since`.

    Args:
        since: an index before which it does not.
    """
    if _waiting(_OPEN, text):
        return True
    plain = [match.start() for match in _JOINT.finditer(text, max(0, since - 2 - 2 * _AHEAD))]
    return bool(plain) and _may_be_spelled(text, plain, _waiting(_SIGN_OPEN, text))


def join(base: View, *, final: bool = True) -> list[View]:
    """Return the joined views of the folded one that show something else than it, or in which something is open."""
    text = base.text
    plain = [match.start() for match in _JOINT.finditer(text)]
    waiting = set() if final else _waiting(_OPEN, text)
    perhaps = _waiting(_SIGN_OPEN, text) - waiting if plain and not final else set()
    if not _may_be_spelled(text, plain, waiting | perhaps):
        plain, perhaps = [], set()
    lasts = [match.start() for match in _LAST.finditer(text, plain[0])] if plain else []
    signs = [match.start() for match in _SIGN_JOINT.finditer(text, plain[0])] if plain else []
    shown = [_joined(base, "joined", plain, lasts, [], waiting, set())]
    if signs or perhaps:
        shown.append(_joined(base, "joined signs", plain, lasts, signs, waiting, perhaps))
    return [view for view in shown if view]


def _may_be_spelled(text: str, plain: list[int], open_places: set[int]) -> bool:
    """Return whether a word is spelled out, or may be: it begins with two characters that are no signs, and a third."""
    places = open_places.union(plain)
    return any(place + 2 in places or _SIGN_JOINT.match(text, place + 2) for place in plain)


def _waiting(undecided: re.Pattern[str], text: str) -> set[int]:
    """Return the places at the end of an unfinished text that may still become separators of lone characters."""
    if not undecided.search(text, max(0, len(text) - 2)):
        return set()
    return {place for place in (len(text) - 2, len(text) - 1) if place > 0 and undecided.match(text, place)}


def _joined(
    base: View,
    name: str,
    plain: list[int],
    lasts: list[int],
    signs: list[int],
    waiting: set[int],
    perhaps: set[int],
) -> View | None:
    """Return `base` without those of the separators of lone characters that are in a word spelled out.

    Args:
        plain: separators between two characters, in order.
        lasts: separators before a Han character that is not alone: of a word spelled out right before.
        signs: separators beside a sign.
        waiting: places that may become one of `plain`, or of `signs`.
        perhaps: places that may become one of `signs` only.
    """
    begins, places = {*plain} - waiting, {*plain, *signs} - waiting - perhaps
    stop = min(waiting, default=None)
    joints: list[Edit] = []
    spelled = -_SOON  # where the last spelled-out word was
    for place in sorted(places.union(lasts)):
        if (place in begins and place + 2 in places) or (place in places and place - 2 in begins):
            spelled = place
        elif place not in places:
            if place - 2 != spelled:
                continue
        elif place - spelled >= _SOON:
            if place in begins and (place + 2 in waiting or place + 2 in perhaps):
                stop = place
                break
            continue
        joints.append(Edit(place, place + 1, ""))
    ends = {place for place in perhaps if place - spelled < _SOON or place - 2 in begins}
    if ends and (stop is None or min(ends) < stop):
        stop = min(ends)
    if not joints and stop is None:
        return None
    return edited(base, name, joints, stop=stop)
