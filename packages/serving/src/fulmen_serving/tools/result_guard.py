"""RAISE-3 over what a tool returned: somebody else's text, judged like a user's before the model reads it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fulmen_core.guard import Guard, InputVerdict

logger = logging.getLogger(__name__)

#: What the model gets in place of a result that the guard blocks.
WITHHELD = "The result was withheld by the safety policy of this server. Answer without it."


@dataclass(frozen=True, slots=True)
class JudgedResult:
    """What of a result the model may read.

    Attributes:
        text: the parts that are left, an empty line between, or `WITHHELD`.
        withheld: how many parts were taken out.
        rewritten: whether something within a part was replaced.
        category: why something was taken out or replaced; empty if nothing was.
    """

    text: str
    withheld: int = 0
    rewritten: bool = False
    category: str = ""


def judge_result(guard: Guard | None, conversation: Sequence[Mapping[str, str]], parts: Sequence[str]) -> JudgedResult:
    """Judge a result in its place at the end of `conversation`.

    The whole is judged at once. Where that is blocked, each part is judged alone and the others are kept, so that one
    poisoned passage does not take the rest with it; what is kept is then judged as a whole once more. A guard that
    raises withholds everything.
    """
    whole = "\n\n".join(parts)
    if guard is None:
        return JudgedResult(whole)
    try:
        verdict = _judge(guard, conversation, whole)
        if verdict.action != "block":
            return JudgedResult(_said(verdict), 0, _said(verdict) != whole, verdict.category)
        kept = []
        if len(parts) > 1:
            kept = [part for part in parts if _judge(guard, conversation, part).action != "block"]
        if kept and len(kept) < len(parts):
            again = _judge(guard, conversation, "\n\n".join(kept))
            if again.action != "block":
                withheld = len(parts) - len(kept)
                note = f"{withheld} of {len(parts)} parts of the result were withheld by the safety policy."
                rewritten = _said(again) != "\n\n".join(kept)
                return JudgedResult(f"{_said(again)}\n\n{note}", withheld, rewritten, verdict.category)
        return JudgedResult(WITHHELD, len(parts), category=verdict.category)
    except Exception:
        logger.exception("the guard failed on the result of a tool, which is withheld")
        return JudgedResult(WITHHELD, len(parts), category="guard_failure")


def _judge(guard: Guard, conversation: Sequence[Mapping[str, str]], text: str) -> InputVerdict:
    return guard.judge_input([*conversation, {"role": "tool", "content": text}])


def _said(verdict: InputVerdict) -> str:
    """What the verdict leaves of the result."""
    return verdict.messages[-1]["content"]
