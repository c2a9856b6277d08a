"""`genai_config.json`: the description by which onnxruntime-genai loads the same folder.

Keys: https://onnxruntime.ai/docs/genai/reference/config.html
"""

from __future__ import annotations

from typing import Any

from fulmen_backend_onnxruntime.artefact import GRAPH_FILE
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan


def genai_config(config: ModelConfig) -> dict[str, Any]:
    """Describe the artefact of a model. Caches, not layers, are numbered, as borrowing layers have none."""
    owners = LayerPlan.of(config).cache_owners
    eos = config.eos_token_id if config.eos_token_id is not None else 0
    decoder: dict[str, Any] = {
        "session_options": {"provider_options": []},
        "filename": GRAPH_FILE,
        "head_size": config.head_dim,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": len(owners),
        "num_key_value_heads": config.num_key_value_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    windows = [owner.cache for owner in owners if owner.window is not None]
    if windows:
        decoder["sliding_window"] = {
            "window_size": config.sliding_window,
            "slide_key_value_cache": False,
            "slide_inputs": False,
            "layers": windows,
        }
    return {
        "model": {
            "type": "decoder",
            "vocab_size": config.vocab_size,
            "context_length": config.max_position_embeddings,
            "bos_token_id": config.bos_token_id if config.bos_token_id is not None else 0,
            "eos_token_id": eos,
            "pad_token_id": config.pad_token_id if config.pad_token_id is not None else 0,
            "decoder": decoder,
        },
        "search": {
            "do_sample": False,
            "max_length": config.max_position_embeddings,
            "past_present_share_buffer": True,
        },
    }
