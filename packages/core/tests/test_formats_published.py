"""Published configurations, as their `config.json` spells them, are read as models of the published size."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fulmen_core.formats.huggingface.config_import import import_config
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.model.parameters import parameters_total

PUBLISHED: dict[str, tuple[int, dict[str, Any]]] = {
    "SmolLM2-135M-Instruct": (
        134_515_008,
        {
            "architectures": ["LlamaForCausalLM"], "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2,
            "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
            "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
            "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
            "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False,
            "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "vocab_size": 49152,
        },
    ),
    "Yi-1.5-6B": (
        6_061_035_520,
        {
            "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
            "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 32,
            "num_hidden_layers": 32, "num_key_value_heads": 4, "pad_token_id": 0, "pretraining_tp": 1,
            "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 5000000.0, "tie_word_embeddings": False,
            "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16", "vocab_size": 64000,
        },
    ),
    "Llama-3.1-8B": (
        8_030_261_248,
        {
            "attention_bias": False, "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu",
            "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": False,
            "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": False, "vocab_size": 128256,
            "rope_scaling": {
                "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3",
            },
        },
    ),
    "Mistral-7B-v0.1": (
        7_241_732_096,
        {
            "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096,
            "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
            "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False, "vocab_size": 32000,
        },
    ),
    "Mixtral-8x7B-v0.1": (
        46_702_792_704,
        {
            "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
            "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
            "model_type": "mixtral", "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
            "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": False, "rms_norm_eps": 1e-05,
            "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False, "vocab_size": 32000,
        },
    ),
    "Qwen3-30B-A3B": (
        30_532_122_624,
        {
            "attention_bias": False, "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645,
            "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144,
            "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
            "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": True,
            "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
            "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000.0,
            "sliding_window": None, "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936,
        },
    ),
    "OLMoE-1B-7B-0924": (
        6_919_161_856,
        {
            "attention_bias": False, "clip_qkv": None, "eos_token_id": 50279, "hidden_act": "silu",
            "hidden_size": 2048, "intermediate_size": 1024, "max_position_embeddings": 4096, "model_type": "olmoe",
            "norm_topk_prob": False, "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
            "num_hidden_layers": 16, "num_key_value_heads": 16, "pad_token_id": 1, "rope_scaling": None,
            "rope_theta": 10000.0, "tie_word_embeddings": False, "vocab_size": 50304,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_has_the_published_number_of_parameters(name: str) -> None:
    parameters, document = PUBLISHED[name]
    family, config = import_config(document, "config.json")
    assert parameters_total(config) == parameters
    assert family.name == document["model_type"]
    assert config.rope_theta == document["rope_theta"]


def test_windows_scaling_and_defaults_of_published_configs_arrive() -> None:
    def config_of(name: str) -> Any:
        return import_config(PUBLISHED[name][1], "config.json")[1]

    assert {layer.window for layer in LayerPlan.of(config_of("Mistral-7B-v0.1"))} == {4096}
    assert {layer.window for layer in LayerPlan.of(config_of("Qwen3-30B-A3B"))} == {None}
    assert config_of("Llama-3.1-8B").rope_scaling.original_max_position_embeddings == 8192
    assert config_of("OLMoE-1B-7B-0924").rms_norm_eps == 1e-5  # which its config leaves to the class
    assert config_of("OLMoE-1B-7B-0924").qk_norm_span == "projection"
    assert config_of("Qwen3-30B-A3B").balance.expert_groups * config_of("Qwen3-30B-A3B").balance.partitions == 8


def test_yarns_factors_follow_the_rules_of_transformers() -> None:
    def scaling_of(**given: Any) -> Any:
        document = PUBLISHED["Qwen3-30B-A3B"][1] | {"rope_scaling": {"rope_type": "yarn", **given}}
        return import_config(document, "config.json")[1].rope_scaling

    plain = scaling_of(factor=4.0, original_max_position_embeddings=32768)
    assert (plain.beta_fast, plain.beta_slow, plain.attention_factor) == (32, 1, None)
    assert scaling_of(original_max_position_embeddings=10240).factor == 4.0  # the ratio of the two contexts
    deep = scaling_of(factor=40.0, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=0.5)
    assert deep.attention_factor == pytest.approx((0.1 * math.log(40) + 1) / (0.05 * math.log(40) + 1))
