"""Random LoRA adapters, and the model that each makes: ``B A`` added to the weights in float64.

Legend: R rank, I inputs, O outputs of a projection.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from fulmen_core.adapters.adapter import load_adapter
from fulmen_core.adapters.projections import Projection, projection_places
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.feed_forward import DenseFeedForward
from fulmen_core.model.transformer import Transformer


def write_adapter(
    config: ModelConfig,
    folder: Path,
    random: np.random.Generator,
    rank: int,
    *,
    share: float = 1.0,
    scale: float = 0.3,
    alpha: float = 5.0,
) -> Path:
    """Write a PEFT folder with random matrices for a `share` of the model's projections, at least one."""
    folder.mkdir(parents=True)
    places = projection_places(config)
    chosen = [module for module in places if random.random() < share] or [str(random.choice(list(places)))]
    tensors = {}
    for module in chosen:
        place = places[module]
        a_RI = random.standard_normal((rank, place.inputs)) / np.sqrt(place.inputs)
        b_OR = random.standard_normal((place.outputs, rank)) * scale * np.sqrt(rank) / alpha
        tensors[f"base_model.model.{module}.lora_A.weight"] = a_RI.astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = b_OR.astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    document = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": sorted(chosen)}
    (folder / "adapter_config.json").write_text(json.dumps(document))
    return folder


def merged(directory: Path, adapter: Path | None) -> Transformer:
    """Return the model in `directory` in float64 with the adapter's ``B A`` added to its weights."""
    model = load_model(directory, torch.float64)
    model.set_experts_implementation("dense")  # grouped products know no float64
    if adapter is not None:
        _merge(model, adapter)
    return model


@torch.no_grad()
def _merge(model: Transformer, folder: Path) -> None:
    for (layer, projection), delta in load_adapter(folder, model.config, 1 << 20).deltas.items():
        weight_OI = _weight(model, layer, projection)
        weight_OI += torch.from_numpy(delta.b_OR.astype(np.float64) @ delta.a_RI.astype(np.float64))


def _weight(model: Transformer, layer: int, projection: Projection) -> Tensor:
    block = model.block(layer)
    dense: Any = block.ffn if isinstance(block.ffn, DenseFeedForward) else block.ffn.shared
    attention: Any = block.attention
    return {  # type: ignore[no-any-return]
        "q": lambda: attention.q_proj.weight,
        "k": lambda: attention.kv_proj.weight.chunk(2)[0],
        "v": lambda: attention.kv_proj.weight.chunk(2)[1],
        "attention_gate": lambda: attention.gate_proj.weight,
        "o": lambda: attention.o_proj.weight,
        "gate": lambda: dense.gate_up.weight.chunk(2)[0],
        "up": lambda: dense.gate_up.weight.chunk(2)[1],
        "down": lambda: dense.down.weight,
    }[projection]()
