"""The items of OpenAI's responses, and the turns that they are to the model.

Source: https://platform.openai.com/docs/api-reference/responses/create (input).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from fulmen_serving.api.strict_request import StrictModel, tag_of
from fulmen_serving.refusal import Refusal

Turn = dict[str, Any]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class TextPart(StrictModel):
    """A part of a message: of what is said to the model, or of an answer that is sent back."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Annotated[list[Any], Field(max_length=0)] | None = None


def _kinds_check(what: str, kinds: Sequence[str], default: str | None = None) -> Callable[[object], object]:
    known = ", ".join(f"'{kind}'" for kind in kinds)

    def check(given: object) -> object:
        for index, one in enumerate(given if isinstance(given, list) else []):
            kind = one.get("type", default) if isinstance(one, dict) else None
            if kind not in kinds:
                raise PydanticCustomError(what, f"{what} {index} is of type {kind!r}; only {known} are supported")
        return given

    return check


_check_parts = _kinds_check("part", ("input_text", "output_text"))


def _parts_of(content: object) -> object:
    """A text as its only part."""
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else _check_parts(content)


TextParts = Annotated[list[TextPart], BeforeValidator(_parts_of, json_schema_input_type=str | list[TextPart])]


class MessageItem(StrictModel):
    """A message: of the user, of the system, or an answer that is sent back, with its id and status."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: TextParts
    id: str | None = None
    status: ItemStatus | None = None
    phase: None = None


class FunctionCallItem(StrictModel):
    """A call of an answer that is sent back."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: ItemStatus | None = None
    async_: None = Field(
        None, alias="async", validation_alias=AliasChoices("async", "async_")
    )  # as the client dumps it
    caller: None = None
    namespace: None = None


class FunctionCallOutputItem(StrictModel):
    """What a function that was called has returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: TextParts
    id: str | None = None
    status: ItemStatus | None = None
    name: None = None
    caller: None = None
    namespace: None = None


class ReasoningText(StrictModel):
    """A part of reasoning."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(StrictModel):
    """Reasoning of an answer that is sent back, as it was given: neither summarised nor encrypted."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: Annotated[list[Any], Field(max_length=0)] = Field(default=[])
    content: list[ReasoningText] | None = None
    encrypted_content: None = None
    status: ItemStatus | None = None


Item = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[FunctionCallItem, Tag("<function_call>")]
    | Annotated[FunctionCallOutputItem, Tag("<function_call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")],
    Discriminator(tag_of),
]
_check_items = _kinds_check("item", ("message", "function_call", "function_call_output", "reasoning"), "message")


def _items_of(given: object) -> object:
    """A text as the user's message; an item without a type is a message."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    items = _check_items(given)
    return [{"type": "message"} | item for item in items] if isinstance(items, list) else items


Items = Annotated[
    list[Item],
    Field(min_length=1),
    BeforeValidator(_items_of, json_schema_input_type=str | Annotated[list[Item], Field(min_length=1)]),
]


def turns_of(items: Iterable[Item]) -> list[Turn]:
    """The turns of a conversation as chat templates read them: an answer's items are one turn of the assistant.

    Raises:
        Refusal: 400, an output answers no call.
    """
    turns: list[Turn] = []
    called: set[str] = set()
    for index, item in enumerate(items):
        match item:
            case MessageItem(role="assistant"):
                turn = _assistants(turns, beyond=("content", "tool_calls"))
                turn["content"] = _text(item.content)
            case MessageItem():
                role = "system" if item.role == "developer" else item.role
                turns.append({"role": role, "content": _text(item.content)})
            case ReasoningItem():
                turn = _assistants(turns, beyond=("content", "tool_calls", "reasoning_content"))
                turn["reasoning_content"] = "".join(part.text for part in item.content or ())
            case FunctionCallItem():
                called.add(item.call_id)
                turn = _assistants(turns)
                function = {"name": item.name, "arguments": item.arguments}
                turn.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})
            case FunctionCallOutputItem():
                if item.call_id not in called:
                    field = f"input[{index}].call_id"
                    raise Refusal(
                        400,
                        f"Invalid '{field}': no item before has a call '{item.call_id}'",
                        code="invalid_value",
                        param=field,
                    )
                turns.append({"role": "tool", "content": _text(item.output), "tool_call_id": item.call_id})
    return [{"content": ""} | turn for turn in turns]


def _assistants(turns: list[Turn], beyond: Sequence[str] = ()) -> Turn:
    """The assistant's turn that goes on, or a new one if it has already one of `beyond`."""
    if not turns or turns[-1]["role"] != "assistant" or any(name in turns[-1] for name in beyond):
        turns.append({"role": "assistant"})
    return turns[-1]


def _text(parts: Iterable[TextPart]) -> str:
    return "".join(part.text for part in parts)
