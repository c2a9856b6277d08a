"""Model directories in Hugging Face's layout: `config.json`, `generation_config.json`, and weights as safetensors.

Weights are one `model.safetensors`, or shards with `model.safetensors.index.json`. Headers are checked against the
config before anything is allocated; no pickle is ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fulmen_core.errors import UserError
from fulmen_core.files import atomic_write_json
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import CONFIG_FILE, load_config
from fulmen_core.model.initialisation import SkipInitialisation
from fulmen_core.model.parameters import parameter_shapes, stays_float32
from fulmen_core.model.safetensors_reader import StoredTensors
from fulmen_core.model.safetensors_writer import SHARD_BYTES, write_safetensors
from fulmen_core.model.transformer import Transformer

__all__ = ["check_tokenizer_fits", "load_config", "load_model", "load_tensors", "save_model", "save_tensors"]

_EXTRA_PREFIX = "extra."


def save_model(
    model: Transformer,
    directory: Path | str,
    extra_tensors: Mapping[str, Tensor] | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `model` into the existing folder `directory`, in the dtype of its weights: see `save_tensors`."""
    save_tensors(model.config, model.state_dict().__getitem__, directory, extra_tensors, shard_bytes=shard_bytes)


def save_tensors(
    config: ModelConfig,
    load: Callable[[str], Tensor],
    directory: Path | str,
    extra_tensors: Mapping[str, Tensor] | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a model into the existing folder `directory`, each file whole or not at all, in the dtypes it comes in.

    `load` gives each tensor of `parameter_shapes(config)`; it is asked for one after another, and only the one that is
    being written need lie in memory. `extra_tensors` (a reward head, say) are stored beside the weights; `load_model`
    leaves them out, `load_tensors` returns them under their names. The config is written last: a folder without one is
    no model. To replace a model as a whole, save into a `fulmen_core.files.atomic_directory`.

    Raises:
        UserError: the folder is missing or cannot be written.
        ValueError: an extra tensor has the name of a weight, or a tensor has not the shape that the config gives it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory} to save the model in", remedy="create it first")
    shapes = parameter_shapes(config)
    extra: dict[str, Tensor] = {}
    for name, tensor in (extra_tensors or {}).items():
        if name in shapes:
            raise ValueError(f"extra tensor '{name}' has the name of a weight")
        extra[_EXTRA_PREFIX + name] = tensor
    dtypes = write_safetensors(
        directory,
        shapes | {name: tuple(tensor.shape) for name, tensor in extra.items()},
        lambda name: extra[name] if name in extra else load(name),
        shard_bytes=shard_bytes,
    )
    special = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    atomic_write_json(
        directory / "generation_config.json", {key: value for key, value in special.items() if value is not None}
    )
    dtype = str(dtypes["embed.weight"]).removeprefix("torch.")
    document = {"architectures": ["FulmenForCausalLM"], "dtype": dtype, **config.model_dump()}
    atomic_write_json(directory / CONFIG_FILE, document)


def load_model(directory: Path | str, dtype: torch.dtype = torch.float32) -> Transformer:
    """Load the model in `directory` on the CPU, in evaluation mode, with weights of `dtype` (routers' biases: float32).

    Raises:
        UserError: a folder, file or key is missing or wrong.
        CorruptArtefact: the weights are truncated, or are not those that the config describes.
    """
    directory = Path(directory)
    config = load_config(directory)
    shapes = parameter_shapes(config)
    stored = StoredTensors(directory)
    stored.check(shapes.items())
    stored.refuse(name for name in stored.entries if name not in shapes and not name.startswith(_EXTRA_PREFIX))
    with torch.device("meta"), SkipInitialisation():
        model = Transformer(config)
    # Copies, as the tensors are views of mapped files, which may be replaced.
    dtypes = {name: torch.float32 if stays_float32(name) else dtype for name in shapes}
    model.load_state_dict({name: stored.load(name).to(dtypes[name], copy=True) for name in shapes}, assign=True)
    model.requires_grad_(True)
    return model.eval()


def load_tensors(directory: Path | str) -> dict[str, Tensor]:
    """All tensors of the weight files in `directory` in their stored dtype, extra ones under the names they were given.

    Raises:
        UserError: there are no weights.
        CorruptArtefact: a file is truncated or its header lies.
    """
    stored = StoredTensors(Path(directory))
    return {name.removeprefix(_EXTRA_PREFIX): stored.load(name).clone() for name in stored.entries}


def check_tokenizer_fits(config: ModelConfig, vocab_size: int) -> None:
    """Refuse a tokenizer whose ids exceed the model's vocabulary. A model may have spare rows.

    Raises:
        UserError: the tokenizer has more ids than the model.
    """
    if vocab_size > config.vocab_size:
        raise UserError(
            f"the tokenizer has {vocab_size} ids and the model {config.vocab_size}",
            remedy="use the tokenizer that the model was trained with",
        )
