"""A small random model and the artefact that an exporter made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fulmen_core.backend import Exporter
from fulmen_core.export.options import ExportOptions
from fulmen_core.model.config import ModelConfig
from fulmen_testing.models import save_random_model


@dataclass(frozen=True)
class Exported:
    """A model directory and the artefact that was made of it. `label` says of a random one how to make it again."""

    label: str
    config: ModelConfig
    model: Path
    artefact: Path


def export_random_model(
    exporter: Exporter, config: ModelConfig, seed: int, root: Path, options: ExportOptions | None = None
) -> Exported:
    """Make a model with weights of `seed` in ``root/model`` and export it to ``root/artefact``."""
    options = options or ExportOptions()
    save_random_model(config, seed, root / "model")
    exporter.export(root / "model", root / "artefact", options)
    return Exported(f"seed {seed}, {options}, {config!r}", config, root / "model", root / "artefact")
