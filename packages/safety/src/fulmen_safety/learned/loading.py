"""Detectors made of a shipped model, or of one that the user trained, by their settings in a policy."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from fulmen_safety.learned.artefact import read
from fulmen_safety.learned.linear_model import LinearModel
from fulmen_safety.learned.prefix_detector import PrefixDetector
from fulmen_safety.learned.window_detector import WindowDetector
from fulmen_safety.settings import Field, Table, read_settings


class LearnedSettings(Table):
    """Settings of a learned detector.

    Args:
        floor: findings below this probability are not reported at all; the policy's threshold decides among the others.
        model: folder written by `fulmen raise train`; default: the model that the plugin ships.
    """

    floor: float = Field(0.3, gt=0.0, le=1.0)
    model: Path | None = None


def shipped(package: str, name: str) -> LinearModel:
    """Return a model that a package ships in its folder ``data/NAME``."""
    return read(resources.files(package) / "data" / name)


def window_detector(name: str, package: str, model: str, settings: Mapping[str, object]) -> WindowDetector:
    """Make a detector of whole texts.

    Args:
        package, model: where the shipped model is, unless the settings name another.

    Raises:
        UserError: a setting that it does not know, a folder without a model.
    """
    given = read_settings(LearnedSettings, settings, f"the settings of the detector {name!r}")
    if given.model:
        return WindowDetector(name, read(given.model), given.floor)
    return WindowDetector(name, shipped(package, model), given.floor, reads_plain=True)


def prefix_detector(name: str, package: str, model: str, settings: Mapping[str, object]) -> PrefixDetector:
    """Make a detector of streams; as `window_detector`."""
    given = read_settings(LearnedSettings, settings, f"the settings of the detector {name!r}")
    return PrefixDetector(name, read(given.model) if given.model else shipped(package, model), given.floor)
