"""Recipes: TOML files plus ``key=value`` overrides, turned into one frozen, checked config object.

Every fault of a recipe ends in one sentence that names the key, the place and what would be right.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from fulmen_core.errors import UserError
from fulmen_core.suggestions import closest

T = TypeVar("T")
Keys = tuple[str, ...]

_SPELLED_OUT = 3  # faults in one sentence


def load_recipe(cls: type[T], path: Path | str | None = None, overrides: Sequence[str] = ()) -> T:
    """Read a recipe and return it as `cls`, a pydantic model that forbids unknown keys.

    Args:
        cls: the config to make.
        path: a TOML file, or None for the defaults of `cls`.
        overrides: ``"key=value"`` or ``"table.key=value"``, applied after the file. The value is TOML (``0.1``,
            ``true``, ``[1, 2]``, ``"text"``); what is not TOML is text, so that ``name=adamw`` needs no quotes.

    Raises:
        UserError: there is no such file, it is not TOML, a key is unknown (with a did-you-mean), a value does not fit.
    """
    data: dict[str, Any] = read_toml(path) if path is not None else {}
    texts: dict[Keys, str] = {}
    for override in overrides:
        keys, text = _split(override)
        _put(data, keys, _toml_value(text))
        texts[keys] = text
    adapter = TypeAdapter(cls)
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        # `name=7` for a text field: TOML saw a number, the user meant its digits.
        faults = {_keys(one["loc"]) for one in error.errors() if one["type"] == "string_type"}
        for keys in faults & texts.keys():
            _put(data, keys, texts[keys])
        place = str(path) if path is not None else "the recipe"
        try:
            return adapter.validate_python(data)
        except ValidationError as remaining:
            raise invalid(remaining, cls, place=place, overridden=texts) from error


def override_table(overrides: Sequence[str]) -> dict[str, Any]:
    """The table that ``"table.key=value"`` overrides make, with values as in `load_recipe`.

    Raises:
        UserError: one is no override, or its table is a value.
    """
    data: dict[str, Any] = {}
    for override in overrides:
        keys, text = _split(override)
        _put(data, keys, _toml_value(text))
    return data


def read_toml(path: Path | str, kind: str = "recipe") -> dict[str, Any]:
    """Read a TOML file; `kind` names it in sentences.

    Raises:
        UserError: there is no such file, it cannot be read, or it is not TOML in UTF-8; with line and column.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no {kind} {path}", remedy="check the path") from error
    except OSError as error:
        raise UserError(f"the {kind} {path} cannot be read", remedy=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise UserError("invalid UTF-8", where=str(path), remedy=f"byte {error.start} is not text") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError("broken TOML", where=str(path), remedy=str(error)) from error


def invalid(error: ValidationError, cls: Any, *, place: str, overridden: Collection[Keys] = ()) -> UserError:
    """Turn pydantic's report into one sentence.

    Args:
        error: the report.
        cls: the model that was validated, for the did-you-mean.
        place: the file, request or setting it was found in.
        overridden: keys that came from the command line instead.
    """
    sentences: dict[str, None] = {}  # a union reports one fault once for each of its members
    for one in error.errors():
        keys = _keys(one["loc"])
        where = (
            "the command line"
            if keys in overridden
            else " ".join([place, *([f"[{'.'.join(keys[:-1])}]"] * (len(keys) > 1))])
        )
        sentences[_sentence(one, keys, cls, where)] = None
    shown = "; ".join(list(sentences)[:_SPELLED_OUT])
    more = len(sentences) - _SPELLED_OUT
    return UserError(f"{shown}; and {more} more" if more > 0 else shown)


def _sentence(one: Any, keys: Keys, cls: Any, where: str) -> str:
    key = keys[-1] if keys else ""
    if one["type"] == "extra_forbidden":
        known = _fields(cls, keys[:-1])
        near = closest(key, known)
        remedy = f"did you mean '{near}'?" if near else f"known keys: {', '.join(sorted(known))}" if known else ""
        return str(UserError(f"unknown key '{key}'", where=where, remedy=remedy))
    if one["type"] == "missing":
        return str(UserError(f"the key '{key}' is missing", where=where))
    wrong = _lower_first(one["msg"].removeprefix("Value error, ").removeprefix("Input ")).rstrip(".")
    if not keys:
        return str(UserError(wrong, where=where))
    got = "" if one["type"] == "value_error" else f", not {_short(one['input'])}"
    if one["type"] == "value_error":
        return str(UserError(f"'{key}' does not fit", where=where, remedy=wrong))
    return f"'{key}' in {where} {wrong}{got}"


def _fields(cls: Any, keys: Keys) -> set[str]:
    """The keys that the model (or models, in a union) at `keys` below `cls` knows."""
    models = list(_models(cls))
    for key in keys:
        below: list[type[BaseModel]] = []
        for model in models:
            if field := model.model_fields.get(key):
                below.extend(_models(field.annotation))
        if below:
            models = below  # else `key` is an index, a dictionary's key or the name of a union's member: same models
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _keys(loc: Sequence[int | str]) -> Keys:
    return tuple(str(part) for part in loc)


def _split(override: str) -> tuple[Keys, str]:
    name, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in name.split("."))
    if not equals or not all(keys):
        raise UserError(
            f"{override!r} is no override", where="the command line", remedy="write key=value or table.key=value"
        )
    return keys, text.strip()


def _toml_value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
    if isinstance(value, datetime.date | datetime.time):
        return text  # no config holds a date; "2024-01-01" is the name of something
    return value


def _put(data: dict[str, Any], keys: Keys, value: Any) -> None:
    for depth, key in enumerate(keys[:-1], 1):
        table = data.setdefault(key, {})
        if not isinstance(table, dict):
            raise UserError(
                f"'{'.'.join(keys[:depth])}' is no table", where="the command line", remedy=f"it is {_short(table)}"
            )
        data = table
    data[keys[-1]] = value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
