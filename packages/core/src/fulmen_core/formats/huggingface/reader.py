"""Reads a Hugging Face folder: translates the config, checks all headers against it, loads tensors when asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import read_json
from fulmen_core.formats.foreign import ForeignCheckpoint
from fulmen_core.formats.huggingface.config_import import import_config
from fulmen_core.formats.huggingface.tensor_names import mappings, packed_marker
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import CONFIG_FILE
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.model.safetensors_reader import StoredTensors
from fulmen_core.model.safetensors_writer import INDEX_FILE, WEIGHTS_FILE

GENERATION_FILE = "generation_config.json"

SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")

#: What belongs to a tokenizer, and is carried over as it is.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")

_PICKLES = ("pytorch_model*.bin*", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def read_folder(folder: Path) -> ForeignCheckpoint:
    """Read the config and the headers of the Hugging Face folder `folder`.

    Raises:
        UserError: there is no such folder, it holds no safetensors, or its architecture or an option is not supported.
        CorruptArtefact: a file is truncated, or a tensor is missing, of another shape, of no weight's dtype, or one
            that the architecture does not have.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", remedy="check the path")
    path = folder / CONFIG_FILE
    document = read_json(path, "model config")
    if not isinstance(document, dict):
        raise CorruptArtefact("the model config is not a JSON object", where=str(path))
    generation = _generation(folder)
    ends = {key: generation[key] for key in SPECIAL_TOKENS if generation.get(key) is not None}
    family, config = import_config({**document, **ends}, str(path))
    _refuse_pickles(folder)
    stored = StoredTensors(folder)
    config = _untied_if_heads_differ(stored, config)

    moe = next((layer.index for layer in LayerPlan.of(config) if layer.ffn == "moe"), None)
    packed = moe is not None and packed_marker(moe) in stored.entries
    by_name = {}
    for mapping in mappings(config, family, packed=packed):
        stored.check((part.name, part.shape) for part in mapping.parts)
        by_name[mapping.name] = mapping
    known = {part.name for mapping in by_name.values() for part in mapping.parts}
    stored.refuse(name for name in stored.entries if name not in known and not _means_nothing(name, config))

    def load(name: str) -> Tensor:
        mapping = by_name[name]
        return mapping.join([stored.load(part.name) for part in mapping.parts])

    files = dict(_tokenizer_files(folder))
    if generation:
        special = {key: value for key in SPECIAL_TOKENS if (value := getattr(config, key)) is not None}
        files[GENERATION_FILE] = json.dumps(generation | special, indent=2, ensure_ascii=False) + "\n"
    return ForeignCheckpoint(family.name, config, load, files)


def _refuse_pickles(folder: Path) -> None:
    """Say why, if a folder without safetensors has a pickle instead."""
    if (folder / WEIGHTS_FILE).is_file() or (folder / INDEX_FILE).is_file():
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise UserError(
            f"the weights {pickles[0]} are a pickle, which runs whatever code it holds when it is read",
            where=str(folder),
            remedy="get the checkpoint as safetensors, or save it so with transformers where you trust it",
        )


def _generation(folder: Path) -> dict[str, Any]:
    """`generation_config.json`: defaults of sampling, and special tokens that go before the config's."""
    path = folder / GENERATION_FILE
    if not path.is_file():
        return {}
    document = read_json(path, "generation config")
    if not isinstance(document, dict):
        raise CorruptArtefact("the generation config is not a JSON object", where=str(path))
    return document


def _untied_if_heads_differ(stored: StoredTensors, config: ModelConfig) -> ModelConfig:
    """Believe the weights about the head, as transformers does: files may hold a head beside a config that ties it."""
    if not config.tie_word_embeddings or _HEAD not in stored.entries or _EMBEDDING not in stored.entries:
        return config
    stored.check((name, (config.vocab_size, config.hidden_size)) for name in (_HEAD, _EMBEDDING))
    same = torch.equal(stored.load(_HEAD), stored.load(_EMBEDDING))
    return config.model_copy(update={"tie_word_embeddings": same})


def _means_nothing(name: str, config: ModelConfig) -> bool:
    """Whether a surplus tensor may be passed over: a copy of tied embeddings, or angles that are computed anyway."""
    return (name == _HEAD and config.tie_word_embeddings) or name.endswith(".rotary_emb.inv_freq")


def _tokenizer_files(folder: Path) -> Mapping[str, str]:
    files = {}
    for name in TOKENIZER_FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            files[name] = path.read_bytes().decode("utf-8")
            if name.endswith(".json"):
                json.loads(files[name])
        except ValueError as error:
            raise CorruptArtefact(f"tokenizer file {path} is damaged", remedy="copy it again") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read", remedy=error.strerror or str(error)) from error
    return files
