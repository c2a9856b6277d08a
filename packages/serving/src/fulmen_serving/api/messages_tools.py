"""What a request for a message says of tools, and of the form of its text.

Source: https://docs.claude.com/en/docs/agents-and-tools/tool-use/overview and
https://docs.claude.com/en/docs/build-with-claude/structured-outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from fulmen_serving.api.function_choice import FunctionChoice
from fulmen_serving.api.messages_blocks import CacheControl
from fulmen_serving.api.strict_request import StrictModel
from fulmen_serving.api.tool_request import FunctionName
from fulmen_serving.grammar.answer_grammar import CallableFunction
from fulmen_serving.grammar.shape import AnswerShape

Chosen = Literal["auto", "any", "tool", "none"]


class AnthropicTool(StrictModel):
    """A function that the model may call."""

    name: FunctionName
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None


def _tools_of(tools: object) -> object:
    """Tools that Anthropic's own servers run are refused by their type."""
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in (None, "custom"):
            raise PydanticCustomError("tool", f"tool {index} is of type {kind!r}; only 'custom' is supported")
    return tools


AnthropicTools = Annotated[list[AnthropicTool], BeforeValidator(_tools_of, json_schema_input_type=list[AnthropicTool])]


class AnthropicToolChoice(StrictModel):
    """Whether tools may or must be called; `name` belongs to the type "tool"."""

    type: Chosen
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class JsonOutputFormat(StrictModel):
    """A JSON schema that the text must fit."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(StrictModel):
    """The form of the text."""

    format: JsonOutputFormat | None = None

    @property
    def shape(self) -> AnswerShape | None:
        """What the text must be."""
        if self.format is None:
            return None
        return AnswerShape("json_schema", self.format.schema_, "output_config.format.schema")


def functions_of(tools: Sequence[AnthropicTool]) -> list[CallableFunction]:
    """The tools as the engine knows functions."""
    return [
        CallableFunction(tool.name, tool.input_schema, bool(tool.strict), f"tools[{index}].input_schema")
        for index, tool in enumerate(tools)
    ]


def shown(tools: Sequence[AnthropicTool]) -> tuple[dict[str, Any], ...]:
    """The tools as chat templates know them: as in OpenAI's `tools`."""
    told = []
    for tool in tools:
        function: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        told.append({"type": "function", "function": function | {"parameters": tool.input_schema}})
    return tuple(told)


def choice_of(given: AnthropicToolChoice | None) -> FunctionChoice:
    """The choice as every protocol has it."""
    if given is None:
        return FunctionChoice()
    modes: dict[Chosen, Literal["none", "auto", "required"]] = {
        "auto": "auto",
        "any": "required",
        "tool": "required",
        "none": "none",
    }
    return FunctionChoice(
        modes[given.type],
        given.name if given.type == "tool" else None,
        not given.disable_parallel_tool_use,
        parallel_field="tool_choice.disable_parallel_tool_use",
    )
