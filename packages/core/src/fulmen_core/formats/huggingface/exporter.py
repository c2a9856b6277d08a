"""The "huggingface" exporter: a model directory becomes the folder of a family that transformers knows."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fulmen_core.artefacts import MANIFEST_FILE, check_replaceable
from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.export.options import ExportOptions
from fulmen_core.files import atomic_directory, atomic_write_json, hash_file, hash_tree
from fulmen_core.formats.foreign import ForeignCheckpoint
from fulmen_core.formats.huggingface.reader import read_folder
from fulmen_core.formats.huggingface.writer import write_folder
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.initialisation import SkipInitialisation
from fulmen_core.model.parameters import parameter_shapes
from fulmen_core.model.safetensors_reader import StoredTensors
from fulmen_core.model.transformer import Transformer

FORMAT = "huggingface"

_TOKENS = 96  # compared after a random prompt this long


class HuggingFaceExporter:
    """A `fulmen_core.backend.Exporter`. It needs no transformers."""

    name = FORMAT

    def export(self, model: Path, out: Path, options: ExportOptions) -> Mapping[str, Any]:
        """Write the model directory `model` to `out`, whole or not at all, and return the manifest.

        Tensors keep the dtype that they have in `model`, whatever it is.

        Raises:
            CapabilityError: an option asks for anything else.
            UserError: `out` holds something that is no artefact; `model` is no model directory, or one that no family
                can say.
            CorruptArtefact: the model's weights are damaged.
        """
        check_replaceable(out)
        options.check(FORMAT, dtypes=("float32",))
        with atomic_directory(out) as work:
            family = write_folder(model, work)
            manifest = {
                "format": FORMAT,
                "family": family.name,
                "model_hash": hash_tree(model),
                "files": {file.name: hash_file(file) for file in sorted(work.iterdir())},
                "tool_versions": {name: version(name) for name in ("fulmen-core", "torch", "safetensors")},
            }
            atomic_write_json(work / MANIFEST_FILE, manifest)
        return manifest

    def check(self, out: Path, model: Path | None = None) -> Mapping[str, Any]:
        """Import `out` again: tensors are the model's bit for bit, and so are logits of random tokens in float32.

        Returns:
            ``max_abs_diff`` of the logits, ``greedy_equal``, whether the likeliest token is the same after each,
            ``tensors_compared``, ``logits_compared``, ``seed``.

        Raises:
            UserError: there is no `model`.
            CorruptArtefact: a tensor differs.
        """
        if model is None:
            raise UserError(
                f"{out} holds nothing of its model to be compared with", remedy="give the model: --model DIR"
            )
        again = read_folder(out)
        compared = _compare_tensors(StoredTensors(model), again, out)
        seed = torch.seed() % 2**31
        length = min(_TOKENS, again.config.max_position_embeddings)
        generator = torch.Generator().manual_seed(seed)
        tokens_1T = torch.randint(again.config.vocab_size, (1, length), generator=generator)
        ours_TV = _logits(load_model(model), tokens_1T)
        theirs_TV = _logits(_network(again), tokens_1T)
        return {
            "max_abs_diff": float((ours_TV - theirs_TV).abs().max()),
            "greedy_equal": bool(torch.equal(ours_TV.argmax(-1), theirs_TV.argmax(-1))),
            "tensors_compared": compared,
            "logits_compared": length,
            "seed": seed,
        }


def _compare_tensors(stored: StoredTensors, again: ForeignCheckpoint, out: Path) -> int:
    names = parameter_shapes(again.config)
    for name in names:
        ours, theirs = stored.load(name), again.load(name)
        if ours.dtype != theirs.dtype or not torch.equal(_bits(ours), _bits(theirs)):
            raise CorruptArtefact(f"tensor '{name}' differs from the model's", where=str(out), remedy="export it again")
    return len(names)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)  # so that NaN equals itself, and zero not its negative


def _network(checkpoint: ForeignCheckpoint) -> Transformer:
    with torch.device("meta"), SkipInitialisation():
        model = Transformer(checkpoint.config)
    names = parameter_shapes(checkpoint.config)
    model.load_state_dict({name: checkpoint.load(name).float() for name in names}, assign=True)
    return model.eval()


@torch.inference_mode()
def _logits(model: Transformer, tokens_1T: torch.Tensor) -> torch.Tensor:
    return model.logits(model(tokens_1T).hidden_BTD)[0]
