"""Which of the policy's languages a text is in, told by its script alone."""

from __future__ import annotations

import re

LANGUAGES = ("en", "zh")

#: How far before a finding its language is looked for. A streamed answer keeps as much (see `hold_back`).
CONTEXT = 16

#: First and last character of each stretch of Han characters.
HAN_RANGES = (("\u3400", "\u9fff"), ("\uf900", "\ufaff"), ("\U00020000", "\U0003ffff"))
_HAN = re.compile(f"[{''.join(f'{low}-{high}' for low, high in HAN_RANGES)}]")


def language_of(text: str) -> str:
    """Return ``"zh"`` if there is a Han character in `text`, else ``"en"``."""
    return "zh" if _HAN.search(text) else "en"


def language_at(text: str, start: int, end: int) -> str:
    """Return the language around ``text[start:end]``: of the span and the few characters before it.

    Nothing after the span counts, so that the answer does not change as a stream goes on.
    """
    return language_of(text[max(0, start - CONTEXT) : end])
