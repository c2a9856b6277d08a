"""Small random models of transformers with adapters of PEFT: what the tests of adapters are held against, beside the
Fulmen models of `fulmen_testing.adapters`, into whose weights ``B A`` was added in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

VOCABULARY = 101

_COMMON: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "intermediate_size": 48,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16}
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True, "head_dim": 12}),
    "qwen3, windows": (
        "qwen3",
        {"head_dim": 16, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 3},
    ),
    "afmoe": (
        "afmoe",
        _EXPERTS
        | {"head_dim": 8, "sliding_window": 9, "num_shared_experts": 2, "num_dense_layers": 1, "mup_enabled": True},
    ),
}

_EVERYTHING = r".*\.(self_attn|mlp|shared_experts)\.[a-z]+_proj"
#: Adapters as their authors might have made them.
ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "all": {"r": 4, "lora_alpha": 8, "target_modules": _EVERYTHING},
    "stabilised": {
        "r": 6,
        "lora_alpha": 3,
        "target_modules": _EVERYTHING,
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2, r"layers\.[12]\.mlp\..*": 17},
        "alpha_pattern": {"down_proj": 9, "layers.0.self_attn.v_proj": 1},
    },
    "queries and values of a layer": {
        "r": 1,
        "lora_alpha": 1,
        "target_modules": ["q_proj", "v_proj"],
        "layers_to_transform": [1],
    },
}


@dataclass(frozen=True)
class Adapted:
    """A model of transformers with adapters of PEFT, its folder, and theirs."""

    theirs: nn.Module
    original: Path
    folders: Mapping[str, Path]

    @torch.inference_mode()
    def logits(self, tokens: list[int], adapter: str | None) -> np.ndarray:
        """Logits [T, V] of PEFT's forward pass; None: without adapters."""
        peft: Any = self.theirs
        if adapter is None:
            with peft.disable_adapter():
                return peft(torch.tensor([tokens]), use_cache=False).logits[0].numpy()  # type: ignore[no-any-return]
        peft.set_adapter(adapter)
        return peft(torch.tensor([tokens]), use_cache=False).logits[0].numpy()  # type: ignore[no-any-return]


def make_adapted(family: str, folder: Path, seed: int) -> Adapted:
    """The model of `family` with every one of `ADAPTERS`, all saved as transformers and PEFT do."""
    import peft
    import transformers

    name, values = FAMILIES[family]
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(name, **_COMMON | values)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if tensor.ndim == 1:
                tensor += 0.2 * torch.randn_like(tensor)
            elif "router" in key:
                tensor.copy_(torch.randn_like(tensor) / 2)
    model.save_pretrained(folder / "original")
    adapted: Any = None
    with pytest.MonkeyPatch.context() as patch:
        # For families with packed experts it would turn every gate_proj into one of routed experts.
        patch.setattr(
            "peft.utils.transformers_weight_conversion.convert_peft_config_for_transformers", lambda *_, **__: None
        )
        for adapter, settings in ADAPTERS.items():
            lora = peft.LoraConfig(**settings)
            if adapted is None:
                adapted = peft.get_peft_model(model, lora, adapter_name=_plain(adapter))
            else:
                adapted.add_adapter(_plain(adapter), lora)
        _randomise(adapted)
        adapted.save_pretrained(folder / "adapters")
    folders = {_plain(adapter): folder / "adapters" / _plain(adapter) for adapter in ADAPTERS}
    return Adapted(adapted.eval(), folder / "original", folders)


def _plain(name: str) -> str:
    return name.replace(" ", "_")


def _randomise(model: nn.Module) -> None:
    """Give B values: it begins as zeros."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                tensor.copy_(0.2 * torch.randn_like(tensor))
