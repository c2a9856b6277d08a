"""What a request says an answer must be: OpenAI's `response_format`, or vLLM's `structured_outputs`.

Sources: https://platform.openai.com/docs/guides/structured-outputs and
https://docs.vllm.ai/en/latest/features/structured_outputs/.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_core import from_json

from fulmen_serving.api.strict_request import StrictModel
from fulmen_serving.grammar.shape import AnswerShape
from fulmen_serving.refusal import Refusal


class JsonSchemaFormat(StrictModel):
    """A JSON schema with a name. `name` and `description` are for the reader: the model is bound, not told."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(StrictModel):
    """OpenAI's `response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(StrictModel):
    """vLLM's `structured_outputs`: one of its fields. `grammar` is Lark, as llguidance reads it."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: Annotated[str, Field(min_length=1)] | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    grammar: Annotated[str, Field(min_length=1)] | None = None
    json_object: Literal[True] | None = None

    def given(self) -> dict[str, Any]:
        """The fields that say something, by the names they have in a request."""
        return self.model_dump(by_alias=True, exclude_none=True)


def shape_of(response_format: ResponseFormat | None, structured: StructuredOutputs | None) -> AnswerShape | None:
    """What both fields say together; None binds nothing.

    Raises:
        Refusal: 400, they say two things, or nothing that can be understood.
    """
    asked = None if response_format is None else _of_format(response_format)
    if structured is None:
        return asked
    given = structured.given()
    if len(given) != 1:
        names = ", ".join(f"'{field.alias or name}'" for name, field in StructuredOutputs.model_fields.items())
        raise _wrong("structured_outputs", f"it must have one of {names}")
    if asked is not None:
        raise _wrong("structured_outputs", "'response_format' says already what the answer must be; give one of them")
    [(kind, value)] = given.items()
    field = f"structured_outputs.{kind}"
    if kind == "json_object":
        return AnswerShape("json_schema", {"type": "object"}, field)
    if kind == "json":
        return AnswerShape("json_schema", _schema_of(value, field), field)
    return AnswerShape(kind, value, field)  # type: ignore[arg-type]  # the three that are left are kinds


def _of_format(asked: ResponseFormat) -> AnswerShape | None:
    field = "response_format"
    if (asked.type == "json_schema") != (asked.json_schema is not None):
        raise _wrong(f"{field}.json_schema", "it belongs to the type 'json_schema', and to no other")
    if asked.type == "text":
        return None
    if asked.json_schema is None:
        return AnswerShape("json_schema", {"type": "object"}, field)
    schema = asked.json_schema.schema_
    return AnswerShape("json_schema", schema or {}, f"{field}.json_schema.schema", bool(asked.json_schema.strict))


def _schema_of(value: dict[str, Any] | str, field: str) -> dict[str, Any]:
    """vLLM takes a schema as text too."""
    if isinstance(value, dict):
        return value
    try:
        schema = from_json(value)
    except ValueError as error:
        raise _wrong(field, f"it is no JSON: {error}") from None
    if not isinstance(schema, dict):
        raise _wrong(field, "a schema must be an object")
    return schema


def _wrong(field: str, message: str) -> Refusal:
    return Refusal(400, f"Invalid '{field}': {message}", code="invalid_value", param=field)
