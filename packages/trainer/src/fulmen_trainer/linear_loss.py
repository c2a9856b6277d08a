"""Cross entropy of a linear head without the logits: chunks of tokens, gradients computed on the way forward.

With a vocabulary of 4,096 and 4,096 tokens this takes 0.4 of the time of head, softmax and backward under autocast,
and holds a chunk of logits instead of all of them (docs/log.md, 2026-11-23).

Legend: N tokens, C tokens of one chunk, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fulmen_core.model.cross_entropy import CrossEntropy, cross_entropy

#: Tokens of a chunk: 512 x 4,096 bfloat16 logits are 4 MiB, which stay in a core's share of the cache.
CHUNK = 512


def _product_dtype(hidden_ND: Tensor) -> torch.dtype:
    """What matrix products run in: autocast's type inside autocast, the operand's own outside."""
    device = hidden_ND.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        targets_N: Tensor,
        weights_N: Tensor,
        cross_entropy: CrossEntropy,
    ) -> Tensor:
        dtype = _product_dtype(hidden_ND)
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        head_cast_VD = head_VD.to(dtype)
        hidden_gradient_ND = torch.empty_like(hidden_ND)
        head_gradient_VD = torch.zeros(head_VD.shape, dtype=wide, device=head_VD.device)
        loss = torch.zeros((), dtype=wide, device=hidden_ND.device)
        for start in range(0, len(hidden_ND), CHUNK):
            rows = slice(start, start + CHUNK)
            hidden_CD = hidden_ND[rows].to(dtype)
            part, gradient_CV = cross_entropy(hidden_CD @ head_cast_VD.T, targets_N[rows], weights_N[rows].to(wide))
            loss += part
            hidden_gradient_ND[rows] = gradient_CV @ head_cast_VD
            head_gradient_VD += gradient_CV.T @ hidden_CD
        ctx.save_for_backward(hidden_gradient_ND, head_gradient_VD.to(head_VD.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_gradient_ND, head_gradient_VD = ctx.saved_tensors
        return hidden_gradient_ND * gradient, head_gradient_VD * gradient, None, None, None


def linear_cross_entropy(
    hidden_ND: Tensor,
    head_VD: Tensor,
    targets_N: Tensor,
    weights_N: Tensor,
    cross_entropy: CrossEntropy = cross_entropy,
) -> Tensor:
    """``sum_i weights_i * -log softmax(hidden_i @ head.T)[targets_i]``, in nats.

    Args:
        hidden_ND: after the final norm, float.
        head_VD: the output head, or the tied embedding.
        targets_N: int64, in ``0 .. V-1`` also where the weight is 0.
        weights_N: float, no gradient flows to it.
        cross_entropy: what turns a chunk of logits into loss and gradient; `model.operations` has the backend's.

    Returns:
        A scalar, float32 or wider. Products run in autocast's type, softmax and sums in float32. Differentiable once.
    """
    apply: Any = _LinearCrossEntropy.apply  # typed as untyped in torch
    loss: Tensor = apply(hidden_ND, head_VD, targets_N, weights_N, cross_entropy)
    return loss


@torch.no_grad()
def token_losses(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Each token's own cross entropy in nats, float32 ``[N]``, without a gradient; for evaluation."""
    dtype = _product_dtype(hidden_ND)
    head_cast_VD = head_VD.to(dtype)
    losses: list[Tensor] = []
    for start in range(0, len(hidden_ND), CHUNK):
        rows = slice(start, start + CHUNK)
        logits_CV = (hidden_ND[rows].to(dtype) @ head_cast_VD.T).float()
        losses.append(torch.nn.functional.cross_entropy(logits_CV, targets_N[rows], reduction="none"))
    return torch.cat(losses)
