"""Log-probabilities of the scored tokens of packed rows, and their sums over each sample.

Only scored positions meet the vocabulary: with short answers after long prompts the head is a small share of the step.

Legend: B rows, T positions, D model width, V vocabulary, N scored positions, M samples of the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

#: Scored positions whose logits exist at once; above it they are recomputed in the backward pass, chunk by chunk.
CHUNK = 4096


def token_log_probs(
    hidden_BTD: Tensor, scored_N: Tensor, targets_N: Tensor, logits: Callable[[Tensor], Tensor], chunk: int = CHUNK
) -> Tensor:
    """Return ``log p(target)`` at each scored position, ``[N]``, in the dtype of the logits.

    Args:
        hidden_BTD: hidden states after the final norm.
        scored_N: int64 flat indices into B·T.
        targets_N: int64 token ids.
        logits: the head, ``[..., D] -> [..., V]``.
        chunk: how many positions' logits are held at once.
    """
    hidden_ND = hidden_BTD.flatten(0, 1).index_select(0, scored_N)

    def of(part_nD: Tensor, targets_n: Tensor) -> Tensor:
        return -F.cross_entropy(logits(part_nD), targets_n, reduction="none")

    if len(targets_N) <= chunk:
        return of(hidden_ND, targets_N)
    parts = zip(torch.split(hidden_ND, chunk), torch.split(targets_N, chunk), strict=True)
    return torch.cat([checkpoint(of, part, targets, use_reentrant=False) for part, targets in parts])


def sample_log_probs(log_probs_N: Tensor, sample_N: Tensor, samples: int) -> Tensor:
    """Sum the token log-probabilities of each sample: ``[M]``; samples without a token in these rows get 0."""
    return log_probs_N.new_zeros(samples).index_add(0, sample_N, log_probs_N)
