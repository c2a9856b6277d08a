"""The checkpoint formats that core itself reads."""

from __future__ import annotations

from fulmen_core.descriptors import CheckpointFormatInfo
from fulmen_core.hooks import hookimpl


@hookimpl
def fulmen_checkpoint_formats() -> list[CheckpointFormatInfo]:
    """GGUF files, and folders as Hugging Face's tools write them."""
    return [
        CheckpointFormatInfo(
            "gguf",
            "a .gguf file of llama.cpp",
            matches="fulmen_core.formats.gguf.checkpoint:is_gguf",
            load="fulmen_core.formats.gguf.checkpoint:read",
        ),
        CheckpointFormatInfo(
            "huggingface",
            "a folder with config.json and safetensors",
            matches="fulmen_core.formats.plugin:is_huggingface_folder",
            load="fulmen_core.formats.huggingface:read",
        ),
    ]
