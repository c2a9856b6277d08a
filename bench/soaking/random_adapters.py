"""Random LoRA adapters of a model, as PEFT would save them: each changes some of all that an adapter may."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fulmen_core.adapters.projections import projection_places
from fulmen_core.model.config_file import load_config


def write_adapters(model: Path, folder: Path, count: int, seed: int) -> list[str]:
    """Write `count` adapters of `model` into `folder`, which is made anew; return their names."""
    shutil.rmtree(folder, ignore_errors=True)
    places = projection_places(load_config(model))
    names = []
    for number in range(count):
        random = np.random.default_rng((seed, number))
        rank = int(random.integers(1, 17))
        changed = [module for module in places if random.random() < 0.7]
        tensors = {}
        for module in changed:
            place, name = places[module], f"base_model.model.{module}"
            tensors[f"{name}.lora_A.weight"] = random.standard_normal((rank, place.inputs), np.float32) / rank
            tensors[f"{name}.lora_B.weight"] = random.standard_normal((place.outputs, rank), np.float32) * np.float32(
                0.02
            )
        names.append(f"adapter-{number}")
        (folder / names[-1]).mkdir(parents=True)
        save_file(tensors, folder / names[-1] / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": changed}
        (folder / names[-1] / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    return names
