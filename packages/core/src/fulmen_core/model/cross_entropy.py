"""The softmax cross entropy of some tokens together with the gradient of their logits.

Legend: C tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CrossEntropy = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def cross_entropy(logits_CV: Tensor, targets_C: Tensor, weights_C: Tensor) -> tuple[Tensor, Tensor]:
    """``sum_c weights_c * -log softmax(logits_c)[targets_c]`` in nats, and its gradient by the logits.

    Args:
        logits_CV: float of any width; overwritten or not.
        targets_C: int64, in ``0 .. V-1`` also where the weight is 0.
        weights_C: float32, or float64 for references.

    Returns:
        A scalar, float32 or wider, and [C, V] in the logits' dtype. Neither has a graph.
    """
    wide = torch.promote_types(logits_CV.dtype, torch.float32)
    target_C1, weight_C1 = targets_C[:, None], weights_C[:, None].to(wide)
    logps_CV = torch.log_softmax(logits_CV, dim=-1, dtype=wide)
    loss = -(logps_CV.gather(1, target_C1) * weight_C1).sum()
    gradient_CV = logps_CV.exp_()  # (probability - [is target]) * weight
    gradient_CV.scatter_add_(1, target_C1, torch.full_like(weight_C1, -1.0))
    return loss, gradient_CV.mul_(weight_C1).to(logits_CV.dtype)
