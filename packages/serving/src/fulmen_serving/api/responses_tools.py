"""What a request for a response says of functions, and of the form of its text.

Source: https://platform.openai.com/docs/guides/function-calling and /structured-outputs, for the Responses API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from fulmen_serving.api.function_choice import FunctionChoice
from fulmen_serving.api.strict_request import StrictModel
from fulmen_serving.api.tool_request import FunctionName
from fulmen_serving.grammar.answer_grammar import CallableFunction
from fulmen_serving.grammar.shape import AnswerShape
from fulmen_serving.refusal import Refusal


class FunctionTool(StrictModel):
    """A function that the model may call."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


def _tools_of(tools: object) -> object:
    """Tools that OpenAI's own servers run are refused by their type."""
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            raise PydanticCustomError("tool", f"tool {index} is of type {kind!r}; only 'function' is supported")
    return tools


FunctionTools = Annotated[list[FunctionTool], BeforeValidator(_tools_of, json_schema_input_type=list[FunctionTool])]


class NamedFunction(StrictModel):
    """The function that must be called."""

    type: Literal["function"]
    name: str


def _choice_tag(choice: object) -> str:
    return "<mode>" if isinstance(choice, str) else "<function>"


ResponseToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")] | Annotated[NamedFunction, Tag("<function>")],
    Discriminator(_choice_tag),
]


class TextFormat(StrictModel):
    """The form of the text. `name` and `description` of a schema are for the reader: the model is bound, not told."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextConfig(StrictModel):
    """How the text is to be."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None

    @property
    def shape(self) -> AnswerShape | None:
        """What the text must be.

        Raises:
            Refusal: 400, a schema is missing, or there is one where none belongs.
        """
        form = self.format
        if form is None or form.type == "text":
            return None
        if (form.type == "json_schema") != (form.schema_ is not None):
            field = "text.format.schema"
            raise Refusal(
                400,
                f"Invalid '{field}': it belongs to the type 'json_schema', and to no other",
                code="invalid_value",
                param=field,
            )
        if form.schema_ is None:
            return AnswerShape("json_schema", {"type": "object"}, "text.format")
        return AnswerShape("json_schema", form.schema_, "text.format.schema", bool(form.strict))


def functions_of(tools: Sequence[FunctionTool]) -> list[CallableFunction]:
    """The tools as the engine knows functions."""
    return [
        CallableFunction(tool.name, tool.parameters or {}, bool(tool.strict), f"tools[{index}].parameters")
        for index, tool in enumerate(tools)
    ]


def shown(tools: Sequence[FunctionTool]) -> tuple[dict[str, Any], ...]:
    """The tools as chat templates know them: as in chat completions."""
    return tuple(
        {"type": "function", "function": tool.model_dump(exclude_none=True, exclude={"type"})} for tool in tools
    )


def choice_of(given: ResponseToolChoice | None, *, parallel: bool) -> FunctionChoice:
    """The choice as every protocol has it."""
    if isinstance(given, NamedFunction):
        return FunctionChoice("required", given.name, parallel)
    return FunctionChoice(given or "auto", None, parallel)
