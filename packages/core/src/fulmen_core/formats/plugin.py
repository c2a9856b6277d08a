"""The checkpoint formats that core itself reads."""

from __future__ import annotations

from pathlib import Path

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


def is_huggingface_folder(path: Path) -> bool:
    """Whether `path` is a folder with the files that a model has there, readable or not."""
    patterns = ("config.json", "*.safetensors", "pytorch_model*.bin")
    return path.is_dir() and any(next(path.glob(pattern), None) for pattern in patterns)
