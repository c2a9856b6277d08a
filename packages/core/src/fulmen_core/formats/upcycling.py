"""Upcycling: a dense checkpoint becomes a fine-grained mixture of experts, and computes the same function at step 0.

A dense SwiGLU network sums over its hidden units, ``y = sum_j down_j silu(gate_j x) (up_j x)``, so cutting the units
into G equal shards cuts y into G summands: shard s, as an expert, computes its own. With C copies of the G shards there
are E = G*C experts; expert ``c*G + s`` is shard s of copy c. The router has one random row for each copy, repeated for
its G shards (virtual groups, arXiv 2410.07524), so the G experts of a copy always have one common logit l_c:

    p_cs = exp(l_c) / (G sum_c' exp(l_c')),  so the K = m*G likeliest experts are m whole copies, the set M
    w_cs = p_cs / sum_{c' in M, s'} p_c's' = a_c / G,  with  sum_{c in M} a_c = 1
    y    = sum_{c in M} sum_s (G w_cs) shard_s(x) = sum_{c in M} a_c dense(x) = dense(x)

which is why `router_scale` is G (and `norm_topk_prob` true). It holds at step 0 whatever the rows are: with C = 1 and
K = G all experts are active; with C > 1 only a part is, and the function is still the dense one. Training then tells
copies and shards apart, since their router rows and their tokens differ.

With K < G a token uses K shards of G, and the function changes: `router_scale` G keeps the mean over random choices
(each selected shard counts G/K times). The router rows are then drawn for each expert apart.

A window of w tokens changes nothing for contexts of at most w tokens. Keys and values stay each layer's own: those of
two trained layers are no more the same tensor than the layers' inputs are.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fulmen_core.errors import UserError
from fulmen_core.formats.foreign import ForeignCheckpoint
from fulmen_core.formats.upcycle_config import UpcycleConfig
from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.recipes import invalid

if TYPE_CHECKING:
    from torch import Tensor

_PLACE = "upcycling"
_ALIGNMENT = 8  # elements; grouped matrix products need rows aligned to 16 bytes
_MOST_GROUPS, _MOST_PARTITIONS = 4, 2  # of the balance losses, where the number of experts divides so


def upcycle(checkpoint: ForeignCheckpoint, wanted: UpcycleConfig) -> ForeignCheckpoint:
    """The mixture of experts made of a dense `checkpoint`; tensors are cut when they are loaded, one at a time.

    Raises:
        UserError: the checkpoint has experts already, or its FFN does not divide into the wanted shards.
    """
    dense = checkpoint.config
    config = _upcycled(dense, wanted)

    def load(name: str) -> Tensor:
        prefix, _, tensor = name.partition(".ffn.")
        if tensor == "router.weight":
            return _router_rows(name, wanted, config, like=checkpoint.load(f"{prefix}.ffn_norm.weight"))
        if tensor == "experts.gate_up_EGD":
            return _cut_gate_up(checkpoint.load(f"{prefix}.ffn.gate_up.weight"), wanted)
        if tensor == "experts.down_EFD":
            return _cut_down(checkpoint.load(f"{prefix}.ffn.down.weight"), wanted)
        return checkpoint.load(name)

    return replace(checkpoint, config=config, load=load)


def _upcycled(dense: ModelConfig, wanted: UpcycleConfig) -> ModelConfig:
    if dense.num_experts:
        raise UserError(
            f"the checkpoint has {dense.num_experts} experts already", where=_PLACE, remedy="upcycle a dense one"
        )
    if wanted.dense_layers >= dense.num_hidden_layers:
        raise UserError(
            f"dense_layers {wanted.dense_layers} leaves none of the {dense.num_hidden_layers} layers to upcycle",
            where=_PLACE,
        )
    inner = dense.intermediate_size
    if inner % (wanted.shards * _ALIGNMENT):
        units = inner // _ALIGNMENT
        fitting = ", ".join(str(shards) for shards in range(2, min(units, 256) + 1) if units % shards == 0)
        raise UserError(
            f"intermediate_size {inner} does not divide into {wanted.shards} shards of whole multiples of {_ALIGNMENT}",
            where=_PLACE,
            remedy=f"split into one of {fitting}" if inner % _ALIGNMENT == 0 and fitting else "",
        )
    groups = math.gcd(wanted.experts, _MOST_GROUPS)
    changes = {
        "num_experts": wanted.experts,
        "num_experts_per_tok": wanted.top_k,
        "moe_intermediate_size": inner // wanted.shards,
        "num_dense_layers": wanted.dense_layers,
        "norm_topk_prob": True,
        "router_scale": float(wanted.shards),
        "layer_pattern": wanted.pattern,
        "sliding_window": wanted.window or min(4096, dense.max_position_embeddings),
        "kv_share": 1,
        "balance": BalanceConfig(expert_groups=groups, partitions=math.gcd(wanted.experts // groups, _MOST_PARTITIONS)),
    }
    try:
        return ModelConfig.model_validate(dense.model_dump() | changes)
    except ValidationError as error:
        raise invalid(error, ModelConfig, place=_PLACE) from error


def _router_rows(name: str, wanted: UpcycleConfig, config: ModelConfig, like: Tensor) -> Tensor:
    """Random rows [E, D] in the dtype of `like`, one for each copy if whole copies are selected.

    Their size gives logits of about unit variance on a normalised input, so that copies share the tokens unevenly from
    the first step on but none takes all.
    """
    import torch

    rows = wanted.experts // wanted.shards if wanted.keeps_function else wanted.experts
    random = torch.Generator().manual_seed(wanted.seed ^ zlib.crc32(name.encode()))
    weight_CD = torch.randn(rows, config.hidden_size, generator=random) / math.sqrt(config.hidden_size)
    return weight_CD.repeat_interleave(wanted.experts // rows, dim=0).to(like.dtype)


def _cut_gate_up(gate_up_GD: Tensor, wanted: UpcycleConfig) -> Tensor:
    """[2*I, D], gate rows first, to [E, 2*I/G, D], gate rows first in each expert."""
    import torch

    shards_S2FD = torch.stack([torch.unflatten(part, 0, (wanted.shards, -1)) for part in gate_up_GD.chunk(2)], dim=1)
    return shards_S2FD.flatten(1, 2).repeat(wanted.experts // wanted.shards, 1, 1)


def _cut_down(down_DI: Tensor, wanted: UpcycleConfig) -> Tensor:
    """[D, I] to [E, I/G, D]."""
    import torch

    shards_SFD = torch.unflatten(down_DI.T, 0, (wanted.shards, -1))
    return shards_SFD.repeat(wanted.experts // wanted.shards, 1, 1).contiguous()
