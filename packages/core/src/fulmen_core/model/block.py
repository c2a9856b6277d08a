"""One pre-norm decoder layer. Shared keys and values are arguments and results of it, never a cache's contents.

That keeps their gradients when blocks are recomputed in the backward pass: the borrowing block's inputs are outputs of
the owning block, so autograd sums into the owner's weights.

Legend: B batch, T time, D model width, K kv heads, h head width, N = B*T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from fulmen_core.model.attention import Attention, attend
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.feed_forward import DenseFeedForward, MixtureFeedForward
from fulmen_core.model.layer_plan import LayerSpec
from fulmen_core.model.masks import Mask
from fulmen_core.model.norm import RMSNorm
from fulmen_core.model.router import Routing


class BlockOutput(NamedTuple):
    """What a block hands on.

    Attributes:
        x_BTD: the residual stream.
        k_BTKh, v_BTKh: the keys and values it used: its own, or those it was given.
        routing: the router's decisions over N = B*T tokens; None for a dense FFN.
    """

    x_BTD: Tensor
    k_BTKh: Tensor
    v_BTKh: Tensor
    routing: Routing | None


class Block(nn.Module):
    """Attention and feed-forward network, each on the normalised residual stream and added back to it.

    With `post_norms` each result is normalised before it is added.
    """

    def __init__(self, config: ModelConfig, layer: LayerSpec) -> None:
        super().__init__()
        self.layer = layer
        self.attend: Callable[[Tensor, Tensor, Tensor, Mask], Tensor] = attend
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, layer)
        self.attention_post_norm = RMSNorm(config.hidden_size, config.rms_norm_eps) if config.post_norms else None
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ffn: MixtureFeedForward | DenseFeedForward = (
            MixtureFeedForward(config)
            if layer.ffn == "moe"
            else DenseFeedForward(config.hidden_size, config.intermediate_size)
        )
        self.ffn_post_norm = RMSNorm(config.hidden_size, config.rms_norm_eps) if config.post_norms else None

    def forward(
        self,
        x_BTD: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Mask,
        shared_kv: tuple[Tensor, Tensor] | None = None,
        recompute_experts: bool = False,
    ) -> BlockOutput:
        """Run the layer on whole rows; `shared_kv` are the owner's K and V, given if and only if this layer borrows."""
        normed_BTD = self.attention_norm(x_BTD)
        k_BTKh, v_BTKh = shared_kv or self.attention.project_kv(normed_BTD, cos, sin)
        q_BTHh = self.attention.project_q(normed_BTD, cos, sin)
        x_BTD = self.add_attention(x_BTD, normed_BTD, self.attend(q_BTHh, k_BTKh, v_BTKh, mask))
        y_BTD, routing = self._feed_forward(x_BTD, recompute_experts)
        return BlockOutput(y_BTD, k_BTKh, v_BTKh, routing)

    def add_attention(self, x_BTD: Tensor, normed_BTD: Tensor, o_BTHh: Tensor) -> Tensor:
        """The stream after attention: `normed_BTD` is its input, `o_BTHh` the heads' results."""
        y_BTD = self.attention.output(o_BTHh, normed_BTD)
        return x_BTD + (y_BTD if self.attention_post_norm is None else self.attention_post_norm(y_BTD))

    def add_feed_forward(self, x_BTD: Tensor, y_BTD: Tensor) -> Tensor:
        """The stream after the feed-forward network, whose output is `y_BTD`."""
        return x_BTD + (y_BTD if self.ffn_post_norm is None else self.ffn_post_norm(y_BTD))

    def feed_forward(self, x_BTD: Tensor) -> Tensor:
        """The second half alone, norm and residual included: [..., D] to [..., D]."""
        return self._feed_forward(x_BTD)[0]

    def _feed_forward(self, x_BTD: Tensor, recompute_experts: bool = False) -> tuple[Tensor, Routing | None]:
        normed_BTD = self.ffn_norm(x_BTD)
        if isinstance(self.ffn, DenseFeedForward):
            return self.add_feed_forward(x_BTD, self.ffn(normed_BTD)), None
        y_ND, routing = self.ffn(normed_BTD.flatten(0, -2), recompute_experts)
        return self.add_feed_forward(x_BTD, y_ND.view_as(x_BTD)), routing
