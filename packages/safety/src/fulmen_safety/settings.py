"""Tables from a policy made into typed settings. Detector plugins describe theirs as a `Table`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fulmen_core.recipes import invalid

__all__ = ["Field", "Table", "read_settings"]


class Table(BaseModel):
    """A table of settings: frozen, no key that it does not know. A docstring below a key describes it in the schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


AnyTable = TypeVar("AnyTable", bound=Table)


def read_settings(kind: type[AnyTable], table: Mapping[str, Any], where: str) -> AnyTable:
    """Make a `kind` of a plain table. `where` names it in the sentence, e.g. ``"the settings of the detector 'pii'"``.

    Raises:
        UserError: an unknown key (with a did-you-mean), a missing one, or a value that does not fit.
    """
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise invalid(error, kind, place=where) from error
