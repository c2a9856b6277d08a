"""Writes a Fulmen model directory as a Hugging Face folder that `AutoModelForCausalLM.from_pretrained` loads."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fulmen_core.files import atomic_write_bytes, atomic_write_json
from fulmen_core.formats.huggingface.config_export import export_config
from fulmen_core.formats.huggingface.families import Family
from fulmen_core.formats.huggingface.reader import GENERATION_FILE, TOKENIZER_FILES
from fulmen_core.formats.huggingface.tensor_names import Part, mappings
from fulmen_core.model.checkpoint import load_config
from fulmen_core.model.config_file import CONFIG_FILE
from fulmen_core.model.parameters import parameter_shapes
from fulmen_core.model.safetensors_reader import StoredTensors
from fulmen_core.model.safetensors_writer import SHARD_BYTES, write_safetensors


def write_folder(model: Path, out: Path, *, shard_bytes: int = SHARD_BYTES) -> Family:
    """Write the model directory `model` into the existing folder `out`, in the stored precision; return the family.

    Raises:
        UserError: `model` is no model directory, or no family can say its config.
        CorruptArtefact: the weights are damaged, or hold more than the model (a reward head, say).
    """
    config = load_config(model)
    family, document = export_config(config)
    stored = StoredTensors(model)
    shapes = parameter_shapes(config)
    stored.check(shapes.items())
    stored.refuse(name for name in stored.entries if name not in shapes)
    parts: dict[str, tuple[str, Part]] = {
        part.name: (mapping.name, part) for mapping in mappings(config, family) for part in mapping.parts
    }

    def load(name: str) -> Tensor:
        ours, part = parts[name]
        return part.take(stored.load(ours))

    dtypes = write_safetensors(
        out, {name: part.shape for name, (_, part) in parts.items()}, load, shard_bytes=shard_bytes
    )
    for name in (GENERATION_FILE, *TOKENIZER_FILES):
        if (model / name).is_file():
            atomic_write_bytes(out / name, (model / name).read_bytes())
    dtype = str(dtypes["model.embed_tokens.weight"]).removeprefix("torch.")
    atomic_write_json(out / CONFIG_FILE, {**document, "dtype": dtype})
    return family
