"""Model directories in Hugging Face's layout: `config.json`, `generation_config.json`, and weights as safetensors.

Weights are one `model.safetensors`, or shards with `model.safetensors.index.json`. Headers are checked against the
config before anything is allocated; no pickle is ever read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import atomic_write_json, read_json, sync_directory
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import CONFIG_FILE, load_config
from fulmen_core.model.parameters import parameter_shapes
from fulmen_core.model.safetensors_header import TensorEntry, read_header
from fulmen_core.model.transformer import Transformer

__all__ = ["check_tokenizer_fits", "load_config", "load_model", "load_tensors", "save_model"]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
_EXTRA_PREFIX = "extra."
_DTYPES = ("F64", "F32", "F16", "BF16")


def save_model(
    model: Transformer,
    directory: Path | str,
    extra_tensors: Mapping[str, Tensor] | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `model` into the existing folder `directory`, in the dtype of its weights, each file whole or not at all.

    `extra_tensors` (a reward head, say) are stored beside the weights; `load_model` leaves them out, `load_tensors`
    returns them under their names. The config is written last: a folder without one is no model. To replace a model
    as a whole, save into a `fulmen_core.files.atomic_directory`.

    Raises:
        UserError: the folder is missing or cannot be written.
        ValueError: an extra tensor has the name of a weight.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory} to save the model in", remedy="create it first")
    tensors: dict[str, Tensor] = dict(model.state_dict())
    for name, tensor in (extra_tensors or {}).items():
        if name in tensors:
            raise ValueError(f"extra tensor '{name}' has the name of a weight")
        tensors[_EXTRA_PREFIX + name] = tensor
    _write_weights({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, directory, shard_bytes)
    config = model.config
    special = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    atomic_write_json(
        directory / "generation_config.json", {key: value for key, value in special.items() if value is not None}
    )
    dtype = str(model.embed.weight.dtype).removeprefix("torch.")
    document = {"architectures": ["FulmenForCausalLM"], "dtype": dtype, **config.model_dump()}
    atomic_write_json(directory / CONFIG_FILE, document)


def load_model(directory: Path | str, dtype: torch.dtype = torch.float32) -> Transformer:
    """Load the model in `directory` with weights of `dtype`, on the CPU, in evaluation mode.

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


def _write_weights(tensors: Mapping[str, Tensor], directory: Path, shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if filled and filled + tensor.nbytes > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes
    if len(shards) == 1:
        _write_file(shards[0], directory / WEIGHTS_FILE)
        (directory / INDEX_FILE).unlink(missing_ok=True)
        _remove_weights_but({WEIGHTS_FILE}, directory)
        return
    (directory / INDEX_FILE).unlink(missing_ok=True)  # an older index must not list a mixture of old and new shards
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(shard, directory / file)
        weight_map |= dict.fromkeys(shard, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    atomic_write_json(directory / INDEX_FILE, {"metadata": {"total_size": size}, "weight_map": weight_map})
    _remove_weights_but(set(weight_map.values()), directory)


def _remove_weights_but(kept: set[str], directory: Path) -> None:
    for path in [directory / WEIGHTS_FILE, *directory.glob("model-*-of-*.safetensors")]:
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _write_file(tensors: dict[str, Tensor], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={"format": "pt"})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written", remedy=error.strerror or str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


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
        if entry.dtype not in _DTYPES:
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
                    tensors[name] = tensor.to(dtype or tensor.dtype, copy=True)
        except SafetensorError as error:
            raise CorruptArtefact(f"weights file {path} is corrupt: {error}") from error
    return tensors
