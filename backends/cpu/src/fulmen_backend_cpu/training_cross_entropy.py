"""The cross entropy of the head's logits over the compiled kernel: one pass, the gradient in place of the logits.

Legend: C tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fulmen_backend_cpu.training_kernels import LANES, load_kernels
from fulmen_core.model.cross_entropy import cross_entropy


def native_cross_entropy(logits_CV: Tensor, targets_C: Tensor, weights_C: Tensor) -> tuple[Tensor, Tensor]:
    """`fulmen_core.model.cross_entropy.cross_entropy`; overwrites the logits."""
    tokens, vocabulary = logits_CV.shape
    low = logits_CV.dtype in (torch.bfloat16, torch.float32) and logits_CV.is_contiguous()
    if not low or vocabulary % LANES or weights_C.dtype is not torch.float32:
        return cross_entropy(logits_CV, targets_C, weights_C)
    losses_C = torch.empty_like(weights_C)
    load_kernels().call(
        "cross_entropy",
        int(logits_CV.dtype is torch.bfloat16),
        *(logits_CV, targets_C.contiguous(), weights_C.contiguous(), losses_C, tokens, vocabulary),
    )
    return losses_C.sum(), logits_CV
