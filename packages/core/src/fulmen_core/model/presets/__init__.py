"""Named model sizes, one TOML file each. Beyond window, sharing and vocabulary they are ours: the report has none."""

from __future__ import annotations

import tomllib
from importlib import resources

from fulmen_core.errors import UserError
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import parse_config
from fulmen_core.suggestions import remedy_for_unknown


def preset_names() -> list[str]:
    """The names of all presets, smallest model first."""
    return ["nano", "small", "lite", "lightning"]


def load_preset(name: str) -> ModelConfig:
    """Read the preset `name`.

    Raises:
        UserError: there is no such preset.
    """
    if name not in preset_names():
        raise UserError(f"unknown preset '{name}'", remedy=remedy_for_unknown(name, preset_names(), kind="presets"))
    text = resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return parse_config(tomllib.loads(text), f"preset {name}")
