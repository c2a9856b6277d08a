"""A foreign checkpoint becomes a Fulmen model directory, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from fulmen_core.errors import UserError
from fulmen_core.files import atomic_directory, atomic_write_text
from fulmen_core.formats.foreign import ForeignCheckpoint
from fulmen_core.model.checkpoint import save_tensors
from fulmen_core.model.config_file import CONFIG_FILE, is_model


def write_model(checkpoint: ForeignCheckpoint, out: Path) -> None:
    """Write `checkpoint` to the folder `out` as config, weights (in shards) and tokenizer files.

    One tensor lies in memory at a time. An older Fulmen model in `out` is replaced when the new one is whole.

    Raises:
        UserError: `out` holds something else than a Fulmen model, or cannot be written.
        CorruptArtefact: a tensor of the checkpoint cannot be read.
    """
    check_out(out)
    with atomic_directory(out) as work:
        save_tensors(checkpoint.config, checkpoint.load, work)
        for name, content in checkpoint.tokenizer_files.items():
            atomic_write_text(work / name, content)


def check_out(out: Path) -> None:
    """Refuse to write over anything but an older Fulmen model or an empty folder: what is there is deleted.

    Raises:
        UserError: `out` is a file, or a folder with other contents.
    """
    if out.is_file():
        raise UserError(f"{out} is a file", remedy="name a new folder for the model")
    if out.is_dir() and any(out.iterdir()) and not is_model(out):
        raise UserError(
            f"the folder {out} is not empty and holds no Fulmen model in its {CONFIG_FILE}",
            remedy="name a new folder: an import replaces all that is there",
        )
