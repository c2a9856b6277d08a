"""Which Hugging Face tensors one Fulmen tensor is made of, and which part of it each of them is.

Fulmen packs what is multiplied together: keys and values, gate and up, all experts of a layer. Experts come in two
layouts: one tensor for each projection of each expert, as published checkpoints and `save_pretrained` have them, and
"packed", as transformers 5 holds them in memory.

Legend: E experts, D model width, F expert width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fulmen_core.formats.huggingface.families import Family
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.layer_plan import LayerPlan, LayerSpec
from fulmen_core.model.parameters import Shape, layer_shapes, parameter_shapes

_GATE_UP, _DOWN = "ffn.experts.gate_up_EGD", "ffn.experts.down_EFD"


@dataclass(frozen=True, slots=True)
class Part:
    """A Hugging Face tensor: its name and shape, and how it is taken from the Fulmen tensor that it is a part of."""

    name: str
    shape: Shape
    take: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TensorMapping:
    """A Fulmen tensor and the Hugging Face tensors it is joined from."""

    name: str
    parts: tuple[Part, ...]
    join: Callable[[Sequence[Tensor]], Tensor]


def mappings(config: ModelConfig, family: Family, *, packed: bool = False) -> Iterator[TensorMapping]:
    """One mapping for each tensor of `parameter_shapes(config)`, in that order."""
    shapes = parameter_shapes(config)
    yield _whole("embed.weight", "model.embed_tokens.weight", shapes["embed.weight"])
    for layer in LayerPlan.of(config):
        ours, theirs = f"blocks.{layer.index}.", f"model.layers.{layer.index}."
        names = _names(family, layer, packed)
        for name, shape in layer_shapes(config, layer).items():
            their = [theirs + part for part in names[name]]
            if name == _GATE_UP and not packed:
                yield _experts_gate_up(ours + name, their[0], their[1], shape)
            elif name == _DOWN:
                yield (_packed_down if packed else _experts_down)(ours + name, their[0], shape)
            elif len(their) == 2:
                yield _halves(ours + name, their, shape)
            else:
                yield _whole(ours + name, their[0], shape)
    yield _whole("norm.weight", "model.norm.weight", shapes["norm.weight"])
    if "head.weight" in shapes:
        yield _whole("head.weight", "lm_head.weight", shapes["head.weight"])


def packed_marker(layer: int) -> str:
    """The tensor whose presence says that experts are packed, if `layer` has some."""
    return f"model.layers.{layer}.mlp.experts.gate_up_proj"


def _names(family: Family, layer: LayerSpec, packed: bool) -> dict[str, tuple[str, ...]]:
    """What the tensors of a layer are called within it; "{}" stands for the number of an expert."""
    names: dict[str, tuple[str, ...]] = {
        "attention_norm.weight": ("input_layernorm.weight",),
        "attention_post_norm.weight": ("post_attention_layernorm.weight",),
        "ffn_norm.weight": (f"{family.ffn_norm}.weight",),
        "ffn_post_norm.weight": ("post_mlp_layernorm.weight",),
        "attention.kv_proj.weight": ("self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    }
    for part in ("q_proj", "o_proj", "gate_proj", "q_norm", "k_norm"):
        names[f"attention.{part}.weight"] = (f"self_attn.{part}.weight",)
    for ours, theirs in (("ffn", "mlp"), ("ffn.shared", "mlp.shared_experts")):
        names[f"{ours}.gate_up.weight"] = (f"{theirs}.gate_proj.weight", f"{theirs}.up_proj.weight")
        names[f"{ours}.down.weight"] = (f"{theirs}.down_proj.weight",)
    if layer.ffn == "moe":
        module = "mlp" if packed else family.experts
        gate, up, down = (f"{module}.experts.{{}}.{part}.weight" for part in family.gate_up_down)
        names["ffn.router.weight"] = (f"{module}.{family.router}",)
        names["ffn.router.bias"] = (f"{module}.expert_bias",)
        names[_GATE_UP] = (f"{module}.experts.gate_up_proj",) if packed else (gate, up)
        names[_DOWN] = (f"{module}.experts.down_proj",) if packed else (down,)
    return names


def _whole(name: str, theirs: str, shape: Shape) -> TensorMapping:
    return TensorMapping(name, (Part(theirs, shape, lambda tensor: tensor),), lambda tensors: tensors[0])


def _halves(name: str, theirs: Sequence[str], shape: Shape) -> TensorMapping:
    half = (shape[0] // 2, shape[1])
    parts = tuple(Part(their, half, partial(_half, at=at)) for at, their in enumerate(theirs))
    return TensorMapping(name, parts, lambda tensors: torch.cat(list(tensors)))


def _half(tensor: Tensor, at: int) -> Tensor:
    return tensor.chunk(2)[at]


def _experts_gate_up(name: str, gate: str, up: str, shape_EGD: Shape) -> TensorMapping:
    experts, rows, width = shape_EGD
    parts = tuple(
        Part(their.format(expert), (rows // 2, width), partial(_expert_half, expert=expert, at=at))
        for expert in range(experts)
        for at, their in enumerate((gate, up))
    )
    return TensorMapping(name, parts, lambda tensors: torch.stack(list(tensors)).view(shape_EGD))


def _expert_half(tensor_EGD: Tensor, expert: int, at: int) -> Tensor:
    return tensor_EGD[expert].chunk(2)[at]


def _experts_down(name: str, down: str, shape_EFD: Shape) -> TensorMapping:
    experts, inner, width = shape_EFD
    parts = tuple(
        Part(down.format(expert), (width, inner), partial(_expert_transposed, expert=expert))
        for expert in range(experts)
    )
    return TensorMapping(name, parts, lambda tensors: torch.stack([tensor_DF.T for tensor_DF in tensors]))


def _expert_transposed(tensor_EFD: Tensor, expert: int) -> Tensor:
    return tensor_EFD[expert].T


def _packed_down(name: str, theirs: str, shape_EFD: Shape) -> TensorMapping:
    experts, inner, width = shape_EFD
    part = Part(theirs, (experts, width, inner), lambda tensor_EFD: tensor_EFD.transpose(1, 2))
    return TensorMapping(name, (part,), lambda tensors: tensors[0].transpose(1, 2))
