"""Hugging Face folders: `config.json`, safetensors and tokenizer files of the families that `families` lists.

In: such a folder, or a Fulmen model directory. Out: a `ForeignCheckpoint`, or such a folder. May import:
`fulmen_core.model` and `fulmen_core.formats.foreign`; transformers is not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fulmen_core.formats.foreign import ForeignCheckpoint


def read(folder: Path) -> ForeignCheckpoint:
    """Read the Hugging Face folder `folder`: see `fulmen_core.formats.huggingface.reader.read_folder`."""
    from fulmen_core.formats.huggingface.reader import read_folder  # torch is for who reads, not for the plugin

    return read_folder(folder)
