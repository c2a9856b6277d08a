"""A conversation with a turn of the model that called tools, and with what came of the calls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fulmen_serving.parsing.parts import ToolCall, WholeAnswer
from fulmen_serving.prompt import ChatPrompt

#: Marks that templates set around calls and results. In a result they are text, so they are spelled another way.
_MARKS = re.compile(r"<(?=/?(?:tool_call|tool_response|tools|think)\b)", re.IGNORECASE)


def with_turn(
    prompt: ChatPrompt, turn: WholeAnswer, calls: Sequence[tuple[str, ToolCall]], results: Sequence[str]
) -> ChatPrompt:
    """The prompt with `turn`, and with a message for each call.

    Args:
        prompt: before the turn.
        turn: what the model said and thought in it.
        calls: id and call.
        results: their texts, in the same order.
    """
    wanted = [
        {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for id, call in calls
    ]
    said: dict[str, Any] = {"role": "assistant", "content": turn.said, "tool_calls": wanted}
    if turn.reasoning:
        said["reasoning_content"] = turn.reasoning
    told = [
        {"role": "tool", "tool_call_id": id, "content": without_marks(result)}
        for (id, _), result in zip(calls, results, strict=True)
    ]
    return replace(prompt, conversation=(*prompt.conversation, said, *told))


def without_marks(result: str) -> str:
    """A result in which no mark of a template stands: ``</tool_response>`` becomes ``&lt;/tool_response>``."""
    return _MARKS.sub("&lt;", result)
