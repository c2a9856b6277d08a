"""Models of transformers written as GGUF, as llama.cpp's converter writes them: by the package `gguf`."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file
from torch import Tensor

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
    "olmoe": gguf.MODEL_ARCH.OLMOE,
    "afmoe": gguf.MODEL_ARCH.AFMOE,
}
_EXPERT = re.compile(r"(model\.layers\.\d+)\.(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)\.weight")
_MIXTRAL = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def permuted(weight: Tensor, heads: int) -> Tensor:
    """`LlamaModel.permute` of convert_hf_to_gguf.py."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def write_gguf(
    folder: Path,
    path: Path,
    *,
    kind: Kind = Kind.F32,
    tokenizer: Callable[[gguf.GGUFWriter], None] | None = None,
    extra: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> Path:
    """Write the Hugging Face folder as GGUF. Matrices are stored as `kind` where their rows allow, all else as F32."""
    config = json.loads((folder / "config.json").read_text())
    arch = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    _write_metadata(writer, config, arch)
    (tokenizer or token_list(config["vocab_size"]))(writer)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for name, tensor in _stacked(_tensors(folder)).items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        if arch == gguf.MODEL_ARCH.LLAMA and name.endswith("q_proj.weight"):
            tensor = permuted(tensor, config["num_attention_heads"])
        if arch == gguf.MODEL_ARCH.LLAMA and name.endswith("k_proj.weight"):
            tensor = permuted(tensor, config["num_key_value_heads"])
        mapped = names.get_name(name.replace("expert_bias", "expert_bias.bias"), (".weight", ".bias"))
        assert mapped is not None, name
        _add(writer, mapped, tensor.float().numpy(), kind)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    if (divisors := _llama3_divisors(config)) is not None:
        writer.add_tensor("rope_freqs.weight", divisors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def token_list(count: int) -> Callable[[gguf.GGUFWriter], None]:
    """A byte-level tokenizer with one merge, only so that transformers learns the size of the vocabulary."""

    def write(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(["t", "0", *(f"t{index}" for index in range(count - 2))])
        writer.add_token_merges(["t 0"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)

    return write


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray[Any, Any], kind: Kind) -> None:
    if kind == Kind.F32 or values.ndim == 1 or values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        writer.add_tensor(name, np.ascontiguousarray(values))
        return
    writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def _stacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Experts of a layer as one tensor, under the name that the converters give it."""
    whole: dict[str, Tensor] = {}
    experts: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if match := _EXPERT.fullmatch(name):
            projection = _MIXTRAL.get(match[3], match[3])
            experts[f"{match[1]}.mlp.experts.{projection}.weight"][int(match[2])] = tensor
        else:
            whole[name] = tensor
    for name, by_index in experts.items():
        whole[name] = torch.stack([by_index[index] for index in range(len(by_index))])
    return whole


def _write_metadata(writer: gguf.GGUFWriter, config: Mapping[str, Any], arch: gguf.MODEL_ARCH) -> None:
    writer.add_name("tiny")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters") or {}
    writer.add_rope_freq_base(rope.get("rope_theta", 10_000.0))
    if rope.get("rope_type") in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if rope["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
        writer.add_rope_dimension_count(config["head_dim"])
    if experts := config.get("num_local_experts") or config.get("num_experts"):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if arch in (gguf.MODEL_ARCH.QWEN3MOE, gguf.MODEL_ARCH.AFMOE):
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if arch == gguf.MODEL_ARCH.OLMOE and config.get("clip_qkv"):
        writer.add_clamp_kqv(config["clip_qkv"])
    if arch == gguf.MODEL_ARCH.AFMOE:
        writer.add_expert_shared_count(config["num_shared_experts"])
        writer.add_leading_dense_block_count(config["num_dense_layers"])
        writer.add_expert_weights_norm(True)
        writer.add_expert_weights_scale(config["route_scale"])
        writer.add_sliding_window(config["sliding_window"])


def _llama3_divisors(config: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
    """`rope_freqs` of convert_hf_to_gguf.py."""
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") != "llama3":
        return None
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    context, low, high = (
        rope[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    divisors: list[float] = []
    for frequency in 1.0 / (rope["rope_theta"] ** (np.arange(0, dim, 2) / dim)):
        wavelength = 2 * math.pi / frequency
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(rope["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(divisors, np.float32)


def byte_tokens(extra: Sequence[str]) -> list[str]:
    """The 256 bytes in GPT-2's spelling, then `extra`."""
    from fulmen_core.tokenizer.byte_level import byte_alphabet

    return [*sorted(byte_alphabet()), *extra]
