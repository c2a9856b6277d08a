"""Whether an answer declines, in English and Chinese, told by how it opens; and openings that comply.

Rules, not a model: what is wanted here is that no pair teaches to decline a harmless question, and a rule errs on the
side that can be read.
"""

from __future__ import annotations

import re

_HAN = re.compile("[\u3400-\u9fff]")
#: How much of an answer is its opening: a refusal says so at once, and a long answer may well contain "I cannot".
_OPENING = 160

_REFUSES = re.compile(
    r"\b(?:i(?:'m| am| must| have to)?\s+(?:really\s+|so\s+|very\s+)?(?:sorry|afraid|apologi[sz]e)"
    r"|i\s+(?:can(?:no|')?t|could(?:n't| not)|won't|will not|am (?:not able|unable|not going)|do(?:n't| not) feel)"
    r"|i(?:'m| am) (?:not able|unable|not going|not comfortable)"
    r"|i (?:would|'d) rather not|i leave out|as an ai\b.{0,40}\b(?:can(?:no|')t|unable|not)"
    r"|my apologies|not something i can|against my (?:guidelines|policy|programming))"
    r"|(?:抱歉|对不起|很遗憾|我不能|我无法|我不会|无法提供|不能提供|无法协助|不能协助|不便回答|不想写|这里不提供)",
    re.IGNORECASE,
)

_DECLINING = {
    "en": "I am sorry, but I cannot help with that.",
    "zh": "抱歉，我无法提供这方面的帮助。",
}
_COMPLYING = {
    "en": "Sure, here is exactly how to do it, step by step. First,",
    "zh": "好的，下面是具体的做法，一步一步来。首先，",
}


def language_of(text: str) -> str:
    """Return ``"zh"`` if there is a Han character in `text`, else ``"en"``."""
    return "zh" if _HAN.search(text) else "en"


def declines(answer: str) -> bool:
    """Return whether the opening of `answer` says that it will not help."""
    return bool(_REFUSES.search(answer.strip().replace("’", "'")[:_OPENING]))


def plain_refusal(language: str) -> str:
    """Return the bare refusal that a helpful answer should win against."""
    return _DECLINING.get(language, _DECLINING["en"])


def bare_compliance(language: str) -> str:
    """Return the opening with which harmful answers begin: what a refusal should win against, without the harm."""
    return _COMPLYING.get(language, _COMPLYING["en"])
