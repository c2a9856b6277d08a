"""Cuts a long text into windows for detectors that read a limited length at once.

A harm that one long text would dilute is seen in its window, and a model never sees more than it can read.
"""

from __future__ import annotations

#: What a window ends with where there is one in its second half, the best first.
_ENDS = ("\n\n", "\n", ".!?。！？；", " \t、，,")


def windows(text: str, size: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Return ``(start, end)`` of windows of at most `size` characters that together hold every character of `text`.

    A window ends behind a paragraph, a line, a sentence or a word, whichever of these there is in its second half; the
    next one starts `overlap` characters before that end. A window of white space alone is left out.

    Raises:
        ValueError: `overlap` is not less than half of `size`.
    """
    if size < 2 or not 0 <= overlap < size // 2:
        raise ValueError(f"windows of {size} characters with an overlap of {overlap}")
    found = []
    start = 0
    while start < len(text):
        end = _end(text, start, size)
        if not text[start:end].isspace():
            found.append((start, end))
        if end == len(text):
            break
        start = max(end - overlap, start + 1)
    return found


def _end(text: str, start: int, size: int) -> int:
    limit = start + size
    if limit >= len(text):
        return len(text)
    half = start + size // 2
    for marks in _ENDS[:2]:
        if (place := text.rfind(marks, half, limit)) >= 0:
            return place + len(marks)
    for marks in _ENDS[2:]:
        if (place := max(text.rfind(mark, half, limit) for mark in marks)) >= 0:
            return place + 1
    return limit
