"""What all request bodies share: every field is honoured or refused by name, never ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from fulmen_core.suggestions import closest
from fulmen_serving.refusal import Refusal

MAX_STOPS = 4

#: The names of the fields that exist at a path, for did-you-mean.
FieldsAt = Callable[[list[int | str]], set[str]]


class StrictModel(BaseModel):
    """An object without unknown fields and without conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


M = TypeVar("M", bound=StrictModel)


def field_names(model: type[StrictModel]) -> set[str]:
    """The names that its fields have in a request."""
    return {field.alias or name for name, field in model.model_fields.items()}


def fields_of(
    model: type[StrictModel],
    nested: Mapping[str, type[StrictModel]] | None = None,
    unsupported: Mapping[str, Iterable[str]] | None = None,
) -> FieldsAt:
    """The names that exist at each path of a request.

    Args:
        model: of the request itself.
        nested: the models of nested objects, by the last name that leads to them.
        unsupported: further names that are known and refused, by the same; "": of the request itself.
    """

    def fields_at(path: list[int | str]) -> set[str]:
        last = next((part for part in reversed(path) if isinstance(part, str)), "")
        here = (nested or {}).get(last) if last else model
        return (field_names(here) if here else set()) | set((unsupported or {}).get(last, ()))

    return fields_at


def tag_of(given: object) -> str | None:
    """What tells the models of a union apart: the type in angle brackets, so that it is no field of a path."""
    kind = given.get("type") if isinstance(given, dict) else None
    return f"<{kind}>" if isinstance(kind, str) else None


class StreamOptions(StrictModel):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


def _stops_of(stop: object) -> object:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list) and "" in stops:
        raise PydanticCustomError("stop", "an empty string would end every answer at once")
    return stops


_STOP = {"type": "string", "minLength": 1}
Stops = Annotated[
    list[str],
    Field(max_length=MAX_STOPS),
    BeforeValidator(_stops_of),
    WithJsonSchema({"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MAX_STOPS}, {"type": "null"}]}),
]


def _biases_of(biases: object) -> object:
    """Token ids are JSON keys, so they arrive as text."""
    if not isinstance(biases, dict):
        return biases
    wrong = next((key for key in biases if not (key.isascii() and key.isdigit() and len(key) < 10)), None)
    if wrong is not None:
        raise PydanticCustomError("logit_bias", "a key is no token id")
    return {int(key): bias for key, bias in biases.items()}


#: A token id to what is added to its logit.
LogitBias = Annotated[
    dict[int, Annotated[float, Field(ge=-100, le=100)]],
    BeforeValidator(_biases_of),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}}),
]


def validate(model: type[M], fields: Mapping[str, Any], fields_at: FieldsAt) -> M:
    """Make a `model` of `fields`.

    Raises:
        Refusal: 400, naming the first field at fault.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error, fields_at) from None


def without_neutral(
    body: Mapping[str, Any], unsupported: Mapping[str, tuple[Any, ...]], where: str = ""
) -> dict[str, Any]:
    """Drop unsupported fields that ask for nothing; refuse those that ask for something.

    Args:
        body: the object.
        unsupported: names, and the values (beside null) with which they ask for nothing.
        where: the path of the object with its last separator.
    """
    kept = dict(body)
    for name in unsupported.keys() & kept.keys():
        value = kept.pop(name)
        if value is not None and value not in unsupported[name]:
            raise Refusal(
                400,
                f"'{where}{name}' is not supported by this server",
                code="unsupported_parameter",
                param=where + name,
            )
    return kept


def _refusal(error: ValidationError, fields_at: FieldsAt) -> Refusal:
    # an unknown field explains a missing one ("mesages"), so it is named first
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    path = [part for part in fault["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    shown = [part for part in path if not (isinstance(part, str) and part.startswith("<"))]  # without `tag_of`
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in shown).lstrip(".")
    if fault["type"] == "extra_forbidden":
        near = closest(str(path[-1]), fields_at(path[:-1]))
        message = f"Unrecognized request argument supplied: {param}" + (f"; did you mean '{near}'?" if near else "")
        return Refusal(400, message, code="unknown_parameter", param=param)
    if fault["type"] == "missing":
        return Refusal(400, f"Missing required parameter: '{param}'", code="missing_required_parameter", param=param)
    if fault["type"] == "model_type":  # pydantic's sentence names our class
        return Refusal(400, f"Invalid '{param}': it must be an object", code="invalid_value", param=param)
    sentence = fault["msg"][:1].lower() + fault["msg"][1:]
    return Refusal(400, f"Invalid '{param}': {sentence}", code="invalid_value", param=param)
