"""What a chat request says of tools: which functions there are, and whether one must be called.

Source: https://platform.openai.com/docs/guides/function-calling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from fulmen_serving.api.strict_request import StrictModel
from fulmen_serving.grammar.answer_grammar import CallableFunction, CallRule
from fulmen_serving.refusal import Refusal

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class FunctionDefinition(StrictModel):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(StrictModel):
    """A tool: a function."""

    type: Literal["function"]
    function: FunctionDefinition


class CalledFunction(StrictModel):
    """A function that the model has called; `arguments` is JSON."""

    name: str
    arguments: str


class MessageToolCall(StrictModel):
    """A call in an earlier answer."""

    id: str
    type: Literal["function"]
    function: CalledFunction


def _choice_of(choice: object) -> object:
    """The mode, or the name of the function that must be called as a tuple of one."""
    if choice is None or choice in ("none", "auto", "required"):
        return choice
    function = choice.get("function") if isinstance(choice, dict) else None
    if (
        isinstance(choice, dict)
        and choice.keys() == {"type", "function"}
        and choice["type"] == "function"
        and isinstance(function, dict)
        and function.keys() == {"name"}
        and isinstance(function["name"], str)
    ):
        return (function["name"],)
    raise PydanticCustomError(
        "tool_choice",
        "it must be 'none', 'auto', 'required', or an object of the type 'function' with the name of a function",
    )


_NAMED = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
            "additionalProperties": False,
        },
    },
    "required": ["type", "function"],
    "additionalProperties": False,
}
ToolChoice = Annotated[
    Literal["none", "auto", "required"] | tuple[str] | None,
    BeforeValidator(_choice_of),
    WithJsonSchema({"anyOf": [{"enum": ["none", "auto", "required"]}, _NAMED, {"type": "null"}]}),
]


def call_rule(tools: Sequence[ToolDefinition], choice: ToolChoice, *, parallel: bool) -> CallRule | None:
    """Which functions may be called and whether one must be; None: none may.

    Raises:
        Refusal: 400, two functions share a name, or the choice names none of them.
    """
    names = [tool.function.name for tool in tools]
    twice = next((index for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise _wrong(f"tools[{twice}].function.name", f"there are two functions '{names[twice]}'")
    if not tools:
        if choice not in (None, "none", "auto"):
            raise _wrong("tool_choice", "there are no 'tools' to choose from")
        return None
    if choice == "none":
        return None
    functions = tuple(
        CallableFunction(
            tool.function.name,
            tool.function.parameters or {},
            bool(tool.function.strict),
            f"tools[{index}].function.parameters",
        )
        for index, tool in enumerate(tools)
        if not isinstance(choice, tuple) or tool.function.name == choice[0]
    )
    if not functions:
        raise _wrong("tool_choice", f"there is no function '{choice[0] if choice else choice}' in 'tools'")
    required = choice == "required" or isinstance(choice, tuple)
    field = "tool_choice" if required else "tools" if parallel else "parallel_tool_calls"
    return CallRule(functions, required, parallel and not isinstance(choice, tuple), field)


def _wrong(field: str, message: str) -> Refusal:
    return Refusal(400, f"Invalid '{field}': {message}", code="invalid_value", param=field)
