"""The network: embedding, the blocks of the layer plan, final norm, and the head.

Legend: B batch, T time, D model width, V vocabulary, N = B*T tokens.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fulmen_core.model.attention import Attention
from fulmen_core.model.block import Block, BlockOutput
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.experts import Experts, Implementation
from fulmen_core.model.initialisation import initialise
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.model.norm import RMSNorm
from fulmen_core.model.operations import Operations
from fulmen_core.model.rope import rotary
from fulmen_core.model.router import RouterStatistics

Recompute = Literal["none", "experts", "blocks"]


class TransformerOutput(NamedTuple):
    """The hidden states after the final norm [B, T, D], and the routers' record (None without MoE layers)."""

    hidden_BTD: Tensor
    router: RouterStatistics | None


class Transformer(nn.Module):
    """A decoder built from a `ModelConfig`; ``with torch.device("meta")`` builds it without memory.

    The head shares the embedding's weight if `tie_word_embeddings`; `head` is then None.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.plan = LayerPlan.of(config)
        self.operations = Operations()
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in self.plan)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        initialise(self, config)

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
        valid_BT: Tensor | None = None,
        recompute: Recompute = "none",
    ) -> TransformerOutput:
        """Run whole rows of tokens.

        Args:
            tokens_BT: int64 ids.
            positions_BT: int64 rotary positions; 0..T-1 if None. Restart them where a document starts.
            segments_BT: int document ids, equal ids adjacent; attention never crosses them. None: one document a row.
            valid_BT: bool, False for tokens that the router's statistics leave out. None: negative segment ids are.
            recompute: what is computed again in the backward pass instead of being kept: "experts", all between their
                inputs and outputs, or "blocks", all between the blocks.
        """
        tokens = tokens_BT.shape[1]
        x_BTD = self.embedded(tokens_BT)
        if positions_BT is None:
            positions_BT = torch.arange(tokens, device=tokens_BT.device)[None]
        if valid_BT is None and segments_BT is not None:
            valid_BT = segments_BT >= 0
        angle_dtype = torch.promote_types(x_BTD.dtype, torch.float32)
        cos, sin = rotary(
            positions_BT, self.config.head_dim, self.config.rope_theta, angle_dtype, self.config.rope_scaling
        )
        windows = dict.fromkeys(layer.window for layer in self.plan)
        masks = {
            window: self.operations.build_mask(tokens, window, segments_BT, tokens_BT.device) for window in windows
        }

        logits: list[Tensor] = []
        selected: list[Tensor] = []
        shared_kv: tuple[Tensor, Tensor] | None = None
        for layer, block in zip(self.plan, self.blocks, strict=True):
            arguments = (
                x_BTD,
                cos,
                sin,
                masks[layer.window],
                None if layer.owns_kv else shared_kv,
                recompute == "experts",
            )
            output: BlockOutput = (
                checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
                if recompute == "blocks"
                else block(*arguments)
            )
            x_BTD = output.x_BTD
            if layer.window is None:
                shared_kv = output.k_BTKh, output.v_BTKh
            if output.routing is not None:
                logits.append(output.routing.logits_NE)
                selected.append(output.routing.selected_NK)
        router = (
            RouterStatistics(
                tuple(logits),
                tuple(selected),
                None if valid_BT is None else valid_BT.flatten(),
                self.config.router_score,
            )
            if logits
            else None
        )
        return TransformerOutput(self.norm(x_BTD), router)

    def embedded(self, tokens_BT: Tensor) -> Tensor:
        """The scaled embeddings [..., D] of token ids [...]: the input of the first block."""
        x_BTD: Tensor = self.embed(tokens_BT)
        return x_BTD if self.config.embedding_scale == 1 else x_BTD * self.config.embedding_scale

    def logits(self, hidden_D: Tensor) -> Tensor:
        """Logits [..., V] in float32 (float64 in a float64 model) of hidden states [..., D] after the final norm."""
        logits_V = F.linear(hidden_D, self.head_weight_VD)
        return logits_V.to(torch.promote_types(logits_V.dtype, torch.float32))

    @property
    def head_weight_VD(self) -> Tensor:
        """The weight that turns hidden states into logits: the head's, or the embedding's if they are tied."""
        return self.embed.weight if self.head is None else self.head.weight

    def set_experts_implementation(self, name: Implementation) -> None:
        """Run all experts as "grouped" or "dense" (see `fulmen_core.model.experts`): same results, other speed."""
        if name not in get_args(Implementation):
            raise ValueError(f"experts implementation '{name}' is neither of {', '.join(get_args(Implementation))}")
        for module in self.modules():
            if isinstance(module, Experts):
                module.implementation = name

    def use(self, operations: Operations) -> None:
        """Compute with `operations` from now on: same results, other speed."""
        self.operations = operations
        for module in self.modules():
            if isinstance(module, RMSNorm):
                module.function = operations.rms_norm
            elif isinstance(module, Attention):
                module.norm_and_rotate = operations.norm_and_rotate
            elif isinstance(module, Block):
                module.attend = operations.attend
            elif isinstance(module, Experts):
                module.grouped = operations.grouped

    def block(self, index: int) -> Block:
        """The block of layer `index`."""
        return cast(Block, self.blocks[index])
