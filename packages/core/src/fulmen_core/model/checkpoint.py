"""Model directories in Hugging Face's layout: `config.json`, `generation_config.json`, and weights as safetensors.

Weights are one `model.safetensors`, or shards with `model.safetensors.index.json`. Headers are checked against the
config before anything is allocated; no pickle is ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import atomic_write_json, read_json
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import CONFIG_FILE, load_config
from fulmen_core.model.parameters import parameter_shapes, stays_float32
from fulmen_core.model.safetensors_header import TensorEntry, read_header
from fulmen_core.model.safetensors_writer import (
    DTYPE_NAMES,
    INDEX_FILE,
    SHARD_BYTES,
    WEIGHTS_FILE,
    write_safetensors,
)
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
    entries = _read_entries(directory)
    _check_entries(entries, shapes, directory)
    with torch.device("meta"):
        model = Transformer(config)
    tensors = _read_tensors({name: entries[name][0] for name in shapes}, dtype)
    model.load_state_dict(tensors, assign=True)
    model.requires_grad_(True)
    return model.eval()


def load_tensors(directory: Path | str) -> dict[str, Tensor]:
    """All tensors of the weight files in `directory` in their stored dtype, extra ones under the names they were given.

    Raises:
        UserError: there are no weights.
        CorruptArtefact: a file is truncated or its header lies.
    """
    entries = _read_entries(Path(directory))
    tensors = _read_tensors({name: path for name, (path, _) in entries.items()}, None)
    return {name.removeprefix(_EXTRA_PREFIX): tensor for name, tensor in tensors.items()}


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


def _read_entries(directory: Path) -> dict[str, tuple[Path, TensorEntry]]:
    """The file and the header's entry of each tensor in `directory`, with all headers checked."""
    single, index = directory / WEIGHTS_FILE, directory / INDEX_FILE
    if single.is_file():
        return {name: (single, entry) for name, entry in read_header(single).tensors.items()}
    if not index.is_file():
        raise UserError(f"folder {directory} holds no weights", remedy=f"expected {WEIGHTS_FILE} or {INDEX_FILE}")
    document = read_json(index, "weight index")
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CorruptArtefact("the weight index has no valid weight_map", where=str(index))
    entries: dict[str, tuple[Path, TensorEntry]] = {}
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file:
            raise CorruptArtefact(f"the weight index points outside its folder, to '{file}'", where=str(index))
        if not (directory / file).is_file():
            raise CorruptArtefact(f"shard {file} is missing", where=str(directory), remedy="copy all shards")
        for name, entry in read_header(directory / file).tensors.items():
            entries[name] = (directory / file, entry)
    misplaced = [name for name, file in weight_map.items() if name not in entries or entries[name][0].name != file]
    if misplaced or len(entries) != len(weight_map):
        raise CorruptArtefact("the weight index and the shards list different tensors", where=str(directory))
    return entries


def _check_entries(
    entries: Mapping[str, tuple[Path, TensorEntry]], shapes: Mapping[str, tuple[int, ...]], directory: Path
) -> None:
    for name, shape in shapes.items():
        if name not in entries:
            raise CorruptArtefact(f"tensor '{name}' is missing from the weights", where=str(directory))
        path, entry = entries[name]
        if entry.shape != shape:
            raise CorruptArtefact(f"tensor '{name}' is {entry.shape} and the config says {shape}", where=str(path))
        if entry.dtype not in DTYPE_NAMES.values():
            raise CorruptArtefact(f"tensor '{name}' has dtype {entry.dtype}, which no weight has", where=str(path))
    strangers = [name for name in entries if name not in shapes and not name.startswith(_EXTRA_PREFIX)]
    if strangers:
        raise CorruptArtefact(
            f"the weights hold '{strangers[0]}', which the config does not describe", where=str(directory)
        )


def _read_tensors(paths: Mapping[str, Path], dtype: torch.dtype | None) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in sorted(set(paths.values())):
        try:
            with safe_open(path, framework="pt") as file:
                for name in (name for name, place in paths.items() if place == path):
                    tensor: Tensor = file.get_tensor(name)
                    # A copy, as the tensor is a view of the mapped file, which may be replaced.
                    to = torch.float32 if dtype and stays_float32(name) else dtype or tensor.dtype
                    tensors[name] = tensor.to(to, copy=True)
        except SafetensorError as error:
            raise CorruptArtefact(f"weights file {path} is corrupt: {error}") from error
    return tensors
