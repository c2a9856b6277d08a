"""`config.json` of a model directory: Hugging Face's file, read strictly and without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import read_json
from fulmen_core.model.config import BalanceConfig, ModelConfig, RopeScaling
from fulmen_core.suggestions import closest

CONFIG_FILE = "config.json"

#: Keys that Hugging Face's tools write and that say nothing about the weights.
_INFORMATIVE = frozenset(
    {"architectures", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "use_cache"}
)

#: Keys whose only value this network implements; another value would load and compute something else.
_FIXED: Mapping[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
}

_NESTED: Mapping[int | str, type[BaseModel]] = {"balance": BalanceConfig, "rope_scaling": RopeScaling}


def is_model(directory: Path) -> bool:
    """Whether `directory` holds the config of a Fulmen model."""
    try:
        document = json.loads((directory / CONFIG_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("model_type") == "fulmen"


def load_config(directory: Path | str) -> ModelConfig:
    """Read the config of the model in `directory`.

    Raises:
        UserError: there is no such folder or no config in it, or a key or value is wrong.
        CorruptArtefact: `config.json` is not a JSON object.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"there is no model folder {directory}", remedy="check the path")
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"folder {directory} holds no model", remedy=f"a model folder has a {CONFIG_FILE}")
    document = read_json(path, "model config")
    if not isinstance(document, dict):
        raise CorruptArtefact("the model config is not a JSON object", where=str(path))
    kind = document.get("model_type", "fulmen")
    if kind != "fulmen":
        raise UserError(
            f"model_type {kind!r} is another project's",
            where=str(path),
            remedy=f"`fulmen import {directory} --out MODEL` makes a Fulmen model of it",
        )
    for key, value in _FIXED.items():
        if key in document and document[key] != value:
            raise UserError(f"{key} {document[key]!r} is not supported", where=str(path), remedy=f"only {value!r} is")
    known = {key: value for key, value in document.items() if key not in _INFORMATIVE and key not in _FIXED}
    return parse_config(known, str(path))


def parse_config(document: Mapping[str, Any], where: str) -> ModelConfig:
    """Make a config of `document`; a wrong key or value is one sentence that names it, its place and the nearest key.

    Raises:
        UserError: the document is not a valid config.
    """
    try:
        return ModelConfig.model_validate(document)
    except ValidationError as error:
        raise _sentence(error, where) from error


def _sentence(error: ValidationError, where: str) -> UserError:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        owner = _NESTED[first["loc"][0]] if len(first["loc"]) > 1 else ModelConfig
        near = closest(str(first["loc"][-1]), owner.model_fields)
        return UserError(f"unknown key '{key}'", where=where, remedy=f"did you mean '{near}'?" if near else "remove it")
    if first["type"] == "missing":
        return UserError(f"key '{key}' is missing", where=where)
    message = first["msg"].removeprefix("Value error, ")
    return UserError(f"{key}: {message}" if key else message, where=where)
