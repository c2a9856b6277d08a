"""What every exporter does once its graph is written: the model's small files, the card, and the manifest, last."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulmen_core.artefacts import MANIFEST_FILE
from fulmen_core.export.manifest import Manifest, hash_files
from fulmen_core.export.model_card import write_card
from fulmen_core.files import atomic_write_json

_FROM_MODEL = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def finish(work: Path, model: Path, manifest: Manifest, runs: Sequence[str]) -> dict[str, Any]:
    """Complete the artefact in `work` and return its manifest with a hash of every file.

    Args:
        work: holds all that is the exporter's own.
        model: the model directory that was exported.
        manifest: without `files`.
        runs: lines of shell that run the artefact, for its card.
    """
    for name in _FROM_MODEL:
        if (model / name).is_file():
            shutil.copyfile(model / name, work / name)
    write_card(work, manifest, runs)
    document = manifest.model_copy(update={"files": hash_files(work)}).model_dump(mode="json")
    atomic_write_json(work / MANIFEST_FILE, document)
    return document
