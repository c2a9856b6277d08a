"""The content blocks of Anthropic's conversations, and the turns that they are to the model.

Source: https://docs.claude.com/en/api/messages (messages, content).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from fulmen_serving.api.strict_request import StrictModel, tag_of
from fulmen_serving.refusal import Refusal

Turn = dict[str, Any]


class CacheControl(StrictModel):
    """Where a client would have a prefix kept. An answer does not depend on it."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(StrictModel):
    """A block of text."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None
    citations: Annotated[list[Any], Field(max_length=0)] | None = None  # of an answer that is sent back


def blocks_check(*kinds: str) -> Callable[[object], object]:
    """Make a validator that reads a text as its only block, and refuses blocks of other `kinds` by their type."""
    known = " and ".join([", ".join(f"'{kind}'" for kind in kinds[:-1])] * (len(kinds) > 1) + [f"'{kinds[-1]}'"])

    def check(content: object) -> object:
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        if isinstance(content, list):
            for index, block in enumerate(content):
                kind = block.get("type") if isinstance(block, dict) else None
                if kind not in kinds:
                    raise PydanticCustomError(
                        "content_block", f"block {index} is of type {kind!r}; only {known} is supported by this server"
                    )
        return content

    return check


TextBlocks = Annotated[
    list[TextBlock], BeforeValidator(blocks_check("text"), json_schema_input_type=str | list[TextBlock])
]


class ThinkingBlock(StrictModel):
    """Reasoning of an answer that is sent back. This server signs none, so it checks no signature."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlock(StrictModel):
    """A call of an answer that is sent back."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: None = None
    toolset_name: None = None


class ToolResultBlock(StrictModel):
    """What a tool that was called has returned. `is_error` is told to the model in a word."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: TextBlocks = Field(default=[])
    is_error: bool | None = None
    cache_control: CacheControl | None = None
    toolset_name: None = None


Block = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")],
    Discriminator(tag_of),
]
Blocks = Annotated[
    list[Block],
    BeforeValidator(
        blocks_check("text", "thinking", "tool_use", "tool_result"), json_schema_input_type=str | list[Block]
    ),
]


class AnthropicMessage(StrictModel):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: Blocks


def text_of(blocks: Iterable[TextBlock]) -> str:
    """The text of blocks, joined."""
    return "".join(block.text for block in blocks)


def turns_of(messages: Sequence[AnthropicMessage]) -> Iterator[Turn]:
    """Yield the turns of a conversation as chat templates read them. Results of tools are turns of their own.

    Raises:
        Refusal: 400, a block stands where its role has none, or answers no call.
    """
    called: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages[{index}].content"
        for place, block in enumerate(message.content):
            wanted = {"thinking": "assistant", "tool_use": "assistant", "tool_result": "user"}.get(block.type)
            if wanted not in (None, message.role):
                raise _wrong(f"{where}[{place}]", f"a block of type '{block.type}' belongs to the role '{wanted}'")
            if isinstance(block, ToolUseBlock):
                called.add(block.id)
            if isinstance(block, ToolResultBlock) and block.tool_use_id not in called:
                raise _wrong(f"{where}[{place}].tool_use_id", f"no block before has the id '{block.tool_use_id}'")
        yield from _results(message)
        texts = [block for block in message.content if isinstance(block, TextBlock)]
        rest = message.role != "user" or texts or not message.content
        if rest:
            yield {"role": message.role, "content": text_of(texts)} | _thoughts(message) | _calls(message)


def joined(turns: Iterable[Turn]) -> list[Turn]:
    """Make one turn of those of one role that follow each other, on lines of their own; tools' stay apart."""
    merged: list[Turn] = []
    for turn in turns:
        last = merged[-1] if merged else {}
        if last.get("role") != turn["role"] or turn["role"] == "tool":
            merged.append(turn)
            continue
        both = {"role": turn["role"], "content": "\n".join(one["content"] for one in (last, turn) if one["content"])}
        if calls := last.get("tool_calls", []) + turn.get("tool_calls", []):
            both["tool_calls"] = calls
        if thoughts := last.get("reasoning_content", "") + turn.get("reasoning_content", ""):
            both["reasoning_content"] = thoughts
        merged[-1] = both
    return merged


def _results(message: AnthropicMessage) -> Iterator[Turn]:
    for block in message.content:
        if isinstance(block, ToolResultBlock):
            said = text_of(block.content)
            yield {
                "role": "tool",
                "content": f"Error: {said}" if block.is_error else said,
                "tool_call_id": block.tool_use_id,
            }


def _thoughts(message: AnthropicMessage) -> Turn:
    thoughts = "".join(block.thinking for block in message.content if isinstance(block, ThinkingBlock))
    return {"reasoning_content": thoughts} if thoughts else {}


def _calls(message: AnthropicMessage) -> Turn:
    calls = [
        {
            "id": block.id,
            "type": "function",
            "function": {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)},
        }
        for block in message.content
        if isinstance(block, ToolUseBlock)
    ]
    return {"tool_calls": calls} if calls else {}


def _wrong(field: str, message: str) -> Refusal:
    return Refusal(400, f"Invalid '{field}': {message}", code="invalid_value", param=field)
