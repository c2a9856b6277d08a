"""Compares an artefact by the backend that serves its format: all that a machine needs on which it is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.manifest import Manifest, artefact_format, read_manifest
from fulmen_core.export.reference import Reference
from fulmen_core.model_directory import choose_backend

if TYPE_CHECKING:
    from fulmen_core.registry import Registry


def check_by_backend(registry: Registry, artefact: Path) -> Mapping[str, Any]:
    """Run the artefact on the answers of its model that it holds: see `fulmen_core.export.comparison.compare`.

    Raises:
        PluginError: no backend here serves its format.
        CorruptArtefact: a file of the artefact is missing or altered.
    """
    format = artefact_format(artefact)
    manifest = read_manifest(artefact, format, Manifest)
    reference = Reference.load(artefact)
    runner = choose_backend(registry, "auto", format).load_runner(artefact, limits_for(reference), manifest.dtype)
    try:
        return compare(runner, reference)
    finally:
        runner.close()
