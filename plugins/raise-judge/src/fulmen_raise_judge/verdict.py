"""Reads what a judge answered, strictly: whatever is not exactly a verdict raises, and the detector has failed.

Two forms: Llama Guard's (``safe``, or ``unsafe`` and a line of codes; its model card) and Qwen3Guard's
(``Safety: ...``, ``Categories: ...`` and, of an answer, ``Refusal: ...``; arXiv 2510.14276).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fulmen_safety.taxonomy import taxonomy

Level = Literal["safe", "controversial", "unsafe"]

#: Qwen3Guard's categories in RAISE's.
QWEN3GUARD: Mapping[str, str] = {
    "violent": "violent_crime",
    "non-violent illegal acts": "nonviolent_crime",
    "sexual content or sexual acts": "sexual_content",
    "pii": "privacy_pii",
    "personally identifiable information": "privacy_pii",
    "suicide & self-harm": "self_harm",
    "unethical acts": "hate_discrimination",
    "politically sensitive topics": "political_national",
    "copyright violation": "ip_secrets",
    "jailbreak": "prompt_attack",
}

_QWEN3GUARD = re.compile(
    r"Safety:[ ]?(Safe|Unsafe|Controversial)\s*\nCategories:[ ]?([^\n]+?)\s*(?:\nRefusal:[ ]?(?:Yes|No))?"
)


class Malformed(Exception):
    """The answer is no verdict."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said: how bad it is, and the categories; none if it is safe."""

    level: Level
    categories: tuple[str, ...] = ()


def read_llama_guard(answer: str) -> Verdict:
    """Read ``safe``, or ``unsafe`` and a second line of codes of S1 to S14.

    Raises:
        Malformed: it is anything else.
    """
    lines = [line.strip() for line in answer.strip().split("\n")]
    if lines == ["safe"]:
        return Verdict("safe")
    if len(lines) != 2 or lines[0] != "unsafe":
        raise Malformed(f"the judge answered {_shown(answer)}, which is neither 'safe' nor 'unsafe' with its codes")
    categories: list[str] = []
    for code in (part.strip() for part in lines[1].split(",")):
        if code not in taxonomy().crosswalk["llama_guard"]:
            raise Malformed(f"the judge named the code {_shown(code)}, which there is not")
        categories += categories_of(code)
    return Verdict("unsafe", tuple(dict.fromkeys(categories)))


def code_of(category: str) -> str:
    """Return the one code of Llama Guard under which a judge is asked about a category; "" if it has none.

    The crosswalk may file a category under several codes. Its own is the one that names it first.
    """
    codes = taxonomy().codes("llama_guard", category)
    own = (code for code in codes if taxonomy().crosswalk["llama_guard"][code][0] == category)
    return next(own, codes[0] if codes else "")


def categories_of(code: str) -> tuple[str, ...]:
    """Return the categories that a judge means by a code: those whose `code_of` it is."""
    return tuple(category for category in taxonomy().titles if code_of(category) == code)


def read_qwen3guard(answer: str) -> Verdict:
    """Read ``Safety: Unsafe``, ``Categories: Violent, PII`` and perhaps ``Refusal: No``, each on its line.

    Raises:
        Malformed: it is anything else, or names an unknown category.
    """
    match = _QWEN3GUARD.fullmatch(answer.strip())
    if match is None:
        raise Malformed(f"the judge answered {_shown(answer)}, which is not of Qwen3Guard's form")
    level: Level = match[1].lower()  # type: ignore[assignment]
    named = match[2].strip()
    if named == "None":
        if level != "safe":
            raise Malformed(f"the judge says {level} and names no category")
        return Verdict("safe")
    if level == "safe":
        raise Malformed(f"the judge says safe and names {_shown(named)}")
    categories = []
    for name in (part.strip().lower() for part in named.split(",")):
        if name not in QWEN3GUARD:
            raise Malformed(f"the judge named the category {_shown(name)}, which there is not")
        categories.append(QWEN3GUARD[name])
    return Verdict(level, tuple(dict.fromkeys(categories)))


def level_probabilities(tokens: Sequence[tuple[str, Mapping[str, float]]], level: Level) -> dict[Level, float] | None:
    """Return how likely each level was where the judge wrote the first letters of the one it chose; None if unknown.

    Args:
        tokens: of the answer in order: the text of each, and the probabilities of what might have stood in its place,
            itself among them.
        level: the verdict's.
    """
    text = ""
    for token, alternatives in tokens:
        begins = len(text) + len(token) - len(_letters(token))
        text += token
        if not _letters(token) or not _begins_level(text, begins, level):
            continue
        found: dict[Level, float] = {}
        for one, probability in alternatives.items():
            for word in _levels(_letters(one)):
                found[word] = found.get(word, 0.0) + probability
        total = sum(found.values())
        return {word: share / total for word, share in found.items()} if total > 0 and level in found else None
    return None


def _begins_level(text: str, begins: int, level: Level) -> bool:
    """Whether what stands at `begins`, up to the end of what is there, is the beginning of the verdict's word."""
    before, begun = text[:begins].strip().lower(), text[begins:].strip().lower()
    return before in ("", "safety:") and (level.startswith(begun) or begun.startswith(level))


def _letters(token: str) -> str:
    """The token in lower case from its first letter on, without what introduces it in Qwen3Guard's form."""
    shown = token.lower().removeprefix("safety:")
    return re.sub(r"^[^a-z]+", "", shown)


def _levels(begun: str) -> list[Level]:
    """The level that a token begins, or that is all of its beginning."""
    words: tuple[Level, ...] = ("safe", "controversial", "unsafe")
    return [word for word in words if begun and (word.startswith(begun) or re.match(rf"{word}\b", begun))]


def _shown(answer: str) -> str:
    return repr(answer if len(answer) <= 60 else f"{answer[:60]}...")
