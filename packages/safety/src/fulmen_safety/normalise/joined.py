"""The joined view: spaced-out words without their separators, ``i g n o r e``, ``1-3-8-0``.

A separator goes if a lone letter, digit, dot or at sign stands on each side of it; two characters around it decide, and
at the end of an unfinished text the view stops where that is still open.
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


def join(base: View, *, final: bool = True) -> View | None:
    """Return the joined view of the folded one, or None if it shows nothing else and nothing is open."""
    text = base.text
    undecided = None if final else _OPEN.search(text, max(0, len(text) - 2))
    stop = undecided.start() if undecided else None
    joints = [Edit(match.start(), match.end(), "") for match in _JOINT.finditer(text, 0, len(text))]
    if stop is not None:
        joints = [joint for joint in joints if joint.start < stop]
    if not joints and stop is None:
        return None
    return edited(base, "joined", joints, stop=stop)
