"""One import: find the format, read the checkpoint, write the model folder, and say what was done."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from fulmen_core.errors import UserError
from fulmen_core.formats.foreign import ForeignCheckpoint
from fulmen_core.formats.upcycling import UpcycleConfig, upcycle
from fulmen_core.formats.writing import check_out, write_model
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.model.parameters import parameter_shapes, parameters_active, parameters_total, stays_float32
from fulmen_core.registry import Registry
from fulmen_core.tokenizer.foreign import TOKENIZER_FILE, ForeignTokenizer

ImportDtype = Literal["auto", "float32", "bfloat16", "float16"]

_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


def import_checkpoint(
    source: Path,
    out: Path,
    registry: Registry,
    *,
    dtype: ImportDtype = "auto",
    format_name: str | None = None,
    upcycling: UpcycleConfig | None = None,
) -> dict[str, Any]:
    """Turn the open checkpoint at `source` into the model folder `out`.

    Args:
        source: a file or folder.
        out: a new folder, or an older Fulmen model, which is replaced when the new one is whole.
        registry: where formats come from.
        dtype: of the weights in `out`; "auto" keeps the stored one, and expands quantised weights to float32.
        format_name: the format; None finds it out.
        upcycling: what mixture of experts to make of a dense checkpoint; None leaves it as it is.

    Returns:
        What `fulmen import --json` prints.

    Raises:
        UserError: the source is missing, a pickle, or asks for what is not supported; or `out` is something else.
        CorruptArtefact: the source is damaged or lies about what it holds.
    """
    started = time.monotonic()
    check_out(out)
    check_source(source)
    found = registry.checkpoint_format(format_name) if format_name else registry.checkpoint_format_of(source)
    checkpoint = found.read(source)
    if upcycling is not None:
        checkpoint = upcycle(checkpoint, upcycling)
    if dtype != "auto":
        checkpoint = _converted(checkpoint, getattr(torch, dtype))
    tokenizer = _tokenizer_of(checkpoint, source)
    write_model(checkpoint, out)
    config = checkpoint.config
    layers = LayerPlan.of(config)
    return {
        "source": str(source),
        "format": found.name,
        "family": checkpoint.family,
        "directory": str(out),
        "bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        "parameters_total": parameters_total(config),
        "parameters_active": parameters_active(config),
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "translated": {
            "tensors": len(parameter_shapes(config)),
            "dtype": dtype,
            "layers": dict(
                Counter(f"{'full' if one.window is None else 'window'} attention, {one.ffn}" for one in layers)
            ),
            "tokenizer_files": sorted(checkpoint.tokenizer_files),
            "tokens": tokenizer.vocab_size if tokenizer else None,
            "chat_template": bool(tokenizer and tokenizer.chat_template),
        },
        "upcycled": None
        if upcycling is None
        else {**upcycling.model_dump(), "keeps_function": upcycling.keeps_function},
        "seconds": round(time.monotonic() - started, 1),
    }


def _tokenizer_of(checkpoint: ForeignCheckpoint, source: Path) -> ForeignTokenizer | None:
    """Load the tokenizer before anything is written, so that one which is of no use is refused in time."""
    if TOKENIZER_FILE not in checkpoint.tokenizer_files:
        return None
    tokenizer = ForeignTokenizer(checkpoint.tokenizer_files, str(source))
    tokenizer.check_model_vocab(checkpoint.config.vocab_size, str(source))
    return tokenizer


def check_source(source: Path) -> None:
    """Refuse what is not there, and pickles, which run whatever code they hold when they are read.

    Raises:
        UserError: one sentence that says which.
    """
    if not source.exists():
        raise UserError(f"there is no checkpoint at {source}", remedy="check the path, or name a known model")
    if source.is_file() and source.suffix in _PICKLES:
        raise UserError(
            f"{source} is a pickle, which runs whatever code it holds when it is read",
            remedy="get the checkpoint as safetensors or GGUF",
        )


def _converted(checkpoint: ForeignCheckpoint, dtype: torch.dtype) -> ForeignCheckpoint:
    def load(name: str) -> torch.Tensor:
        tensor = checkpoint.load(name)
        return tensor.float() if stays_float32(name) else tensor.to(dtype)

    return replace(checkpoint, load=load)
