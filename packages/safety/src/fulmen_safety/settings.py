"""Tables from a file made into typed settings, with one sentence for whatever is wrong in them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fulmen_core.errors import UserError
from fulmen_core.suggestions import remedy_for_unknown


class Table(BaseModel):
    """A table of settings: frozen, no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyTable = TypeVar("AnyTable", bound=Table)


def read_settings(kind: type[AnyTable], table: Mapping[str, Any], where: str) -> AnyTable:
    """Make a `kind` of a plain table. `where` names the file and table in the sentence, e.g. ``"policy.toml
    [detectors.pii]"``.

    Raises:
        UserError: an unknown key (with a did-you-mean), a missing one, or a value of the wrong kind. The first fault
            is told.
    """
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        path = [str(step) for step in fault["loc"]]
        if fault["type"] == "extra_forbidden":
            known = _keys(kind, path[:-1])
            what = f"unknown key {path[-1]!r}"
            raise UserError(
                what, where=_place(where, path[:-1]), remedy=remedy_for_unknown(path[-1], known, kind="keys")
            ) from None
        if fault["type"] == "missing":
            raise UserError(f"the key {path[-1]!r} is missing", where=_place(where, path[:-1])) from None
        what = f"the value {fault['input']!r} is not valid" if path else "the table is not valid"
        raise UserError(what, where=_place(where, path), remedy=_lower(fault["msg"])) from None


def read_file(path: Path, kind: str) -> bytes:
    """Read a file. `kind` says what it is in the sentence, e.g. ``"policy"``.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"there is no {kind} at {path}", remedy="check the path") from error
    except OSError as error:
        raise UserError(f"the {kind} at {path} cannot be read", remedy=error.strerror or str(error)) from error


def parse_toml(data: bytes, kind: str, where: str) -> dict[str, Any]:
    """Parse TOML. `where` names the file in the sentence. Raises `UserError` if it is not UTF-8 or not TOML."""
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"the {kind} is not UTF-8 at byte {error.start}", where=where) from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the {kind} is not valid TOML", where=where, remedy=_lower(str(error))) from error


def _keys(kind: type[BaseModel], path: Iterable[str]) -> list[str]:
    """The keys of the table at `path` below a model, as far as its annotations tell."""
    for step in path:
        field = kind.model_fields.get(step)
        inner = _model_in(field.annotation) if field else _model_in(kind)
        if inner is None:
            continue  # an index or a free key: the model was already found in the annotation around it
        kind = inner
    return list(kind.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _place(where: str, path: list[str]) -> str:
    return f"{where} [{'.'.join(path)}]" if path else where


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
