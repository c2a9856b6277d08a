"""Compares an artefact by the backend that serves its format: all that a machine needs on which it is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.manifest import Manifest, read_manifest
from fulmen_core.export.reference import Reference
from fulmen_core.model_directory import ModelDirectory, choose_backend

if TYPE_CHECKING:
    from fulmen_core.registry import Registry


def check_by_backend(registry: Registry, artefact: Path) -> Mapping[str, Any]:
    """Run the artefact on the answers of its model that it holds: see `fulmen_core.export.comparison.compare`.

    Raises:
        PluginError: no backend here serves its format.
        CorruptArtefact: a file of the artefact is missing or altered.
    """
    directory = ModelDirectory.inspect(artefact)
    read_manifest(artefact, directory.format, Manifest)  # every file is what was written
    reference = Reference.load(artefact)
    backend = choose_backend(registry, "auto", directory.format)
    dtype = directory.dtype_on(backend)
    runner = backend.load_runner(artefact, limits_for(reference), dtype)
    try:
        return {**compare(runner, reference), "executed": f"the artefact in {dtype} by the backend {backend.name}"}
    finally:
        runner.close()
