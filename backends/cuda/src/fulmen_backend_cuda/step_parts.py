"""What a serving step computes around its attention kernels, as functions that torch may compile.

Run one operation after the other a layer is a hundred small kernels, which take a GPU longer to begin than to do.
Compiled, norms, rotations, routing and casts become a few. Blocks are arguments: one compilation serves all layers of a
kind and any number of rows, so that a model of any depth is compiled in the time of one layer.

Legend: N rows, R wanted rows, D model width, H heads, K kv heads, h head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fulmen_backend_cuda.experts import Mix, feed_forward
from fulmen_core.model.block import Block
from fulmen_core.model.compilation import why_not_compiled
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer

_KINDS = 256  # of layers in all models of a process, each for one row and for several

KeysAndValues = tuple[Tensor, Tensor]


class StepParts(NamedTuple):
    """The functions of this module, compiled or as they are."""

    before_attention: Callable[[Block, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, KeysAndValues | None]]
    after_attention: Callable[[Block, Mix | None, Tensor, Tensor, Tensor], Tensor]
    last_hidden: Callable[[Transformer, Tensor, Tensor], Tensor]


def before_attention(
    block: Block, x_ND: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, KeysAndValues | None]:
    """The normalised input [N, D], the queries [N, H, h], and keys and values [N, K, h] where the layer owns some."""
    normed_ND = block.attention_norm(x_ND)
    q_NHh = block.attention.project_q(normed_ND, cos, sin)
    owned = block.attention.project_kv(normed_ND, cos, sin) if block.attention.kv_proj is not None else None
    return normed_ND, q_NHh, owned


def after_attention(block: Block, mix: Mix | None, x_ND: Tensor, normed_ND: Tensor, o_NHh: Tensor) -> Tensor:
    """The stream [N, D] behind the layer, of the heads' results `o_NHh`."""
    return feed_forward(block, block.add_attention(x_ND, normed_ND, o_NHh), mix)


def last_hidden(model: Transformer, x_ND: Tensor, rows_R: Tensor) -> Tensor:
    """The final normed hidden states [R, D] of the wanted rows."""
    hidden_RD: Tensor = model.norm(x_ND.index_select(0, rows_R))
    return hidden_RD


PLAIN = StepParts(before_attention, after_attention, last_hidden)


@cache
def compiled() -> StepParts:
    """The parts as torch's compiler makes them, at the first call of each kind of layer; seconds each.

    They serve every model of the process: what was compiled for one is never given back, and fits its like.
    """
    compile_part: Callable[..., Any] = torch.compile  # its annotations lack what follows in torch 2.13
    made = (compile_part(part, fullgraph=True, recompile_limit=_KINDS, isolate_recompiles=True) for part in PLAIN)
    return StepParts(*map(_for_any_rows, made))


def _for_any_rows(part: Callable[..., Any]) -> Callable[..., Any]:
    """`part`, told that its tensors have another number of rows each time; weights keep theirs."""

    def call(*arguments: Any) -> Any:
        for argument in arguments:
            if isinstance(argument, Tensor):
                torch._dynamo.maybe_mark_dynamic(argument, 0)
        return part(*arguments)

    return call


def why_plain(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> str:
    """Why the parts of a model cannot be compiled, or an empty text."""
    if config.num_experts and dtype is not torch.bfloat16:
        return "grouped matrix products compile in bfloat16 only"  # torch 2.13, meta registration
    return why_not_compiled(str(device))
