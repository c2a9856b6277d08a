"""Adapters that PEFT itself made and saved: the same change to every weight, and a refusal of its other kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fulmen_core.adapters.adapter import load_adapter
from fulmen_core.adapters.description import AdapterDescription
from fulmen_core.adapters.projections import projection_places
from fulmen_core.errors import UserError
from fulmen_core.formats.huggingface.config_import import import_config
from fulmen_core.model.config import ModelConfig

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make(folder: Path, **settings: Any) -> tuple[nn.Module, ModelConfig]:
    """A model of two layers with a random adapter, and the config that Fulmen has of the model."""
    theirs = transformers.AutoConfig.for_model(
        "llama",
        vocab_size=51,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=40,
    )
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_config(theirs),
        peft.LoraConfig(**{"r": 3, "lora_alpha": 7, "target_modules": LINEAR} | settings),
    )
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_" in name:
                tensor.copy_(torch.randn_like(tensor))
    model.save_pretrained(folder)
    return model, import_config(theirs.to_dict(), "theirs")[1]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"target_modules": r".*layers\.1\.(self_attn\.[qk]|mlp\.up)_proj"},
        {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1]},
        {"exclude_modules": ["k_proj", "model.layers.0.mlp.down_proj"]},
        {"rank_pattern": {"q_proj": 5, r".*\.mlp\..*": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 1}},
        {"rank_pattern": {r"^model\.layers\.0\..*": 1}, "alpha_pattern": {"proj": 9}, "use_rslora": True},
        {"init_lora_weights": "orthogonal", "r": 4},
        {"lora_dropout": 0.5},
    ],
)
def test_every_weight_changes_as_it_does_in_peft(tmp_path: Path, settings: dict[str, Any]) -> None:
    model, config = make(tmp_path, **settings)
    ours = load_adapter(tmp_path, config, 8).deltas
    changed = {name.removeprefix("base_model.model."): m for name, m in model.named_modules() if hasattr(m, "lora_A")}
    places = projection_places(config)
    assert {(places[module].layer, places[module].projection) for module in changed} == ours.keys()
    for module, layer in changed.items():
        delta = ours[places[module].layer, places[module].projection]
        theirs_OI = layer.get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(delta.b_OR @ delta.a_RI, theirs_OI, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "biases"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "trained whole"),
        ({"target_modules": ["lm_head", "q_proj"]}, "lm_head.*embeddings and heads"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens.*embeddings and heads"),
        ({"trainable_token_indices": [1, 2]}, "embeddings are served as they are"),
        ({"target_parameters": ["mlp.up_proj.weight"], "target_modules": ["q_proj"]}, "target_parameters"),
        ({"alora_invocation_tokens": [3, 4]}, "aLoRA"),
        ({"init_lora_weights": "pissa"}, "changes the model's weights"),
    ],
)
def test_its_other_kinds_are_refused_by_name(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    _, config = make(tmp_path, **settings)
    with pytest.raises(UserError, match=words):
        AdapterDescription.inspect(tmp_path).check(config, 8)


def test_another_method_is_refused_by_name(tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model("llama", vocab_size=51, hidden_size=32, num_hidden_layers=1)
    )
    peft.get_peft_model(model, peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[])).save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match="peft_type is 'IA3'"):
        AdapterDescription.inspect(tmp_path)
