"""The losses of post-training, as functions of log-probabilities and scores alone.

Each returns the *share* of a micro-batch in the mean over the whole batch: shares add up to the batch's loss, so that
neither its value nor its gradient depends on how the batch was split.

Legend: N scored tokens of the micro-batch, M samples of the batch, P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_weights(scored_M: Tensor) -> Tensor:
    """Weight of one token of each sample, ``[M]`` float: ``1/(M·|y_m|)``, so that every sample weighs the same.

    Report section 4.1: packing would otherwise let long samples dominate.

    Args:
        scored_M: trained tokens of each sample of the *global* batch, each at least 1.
    """
    return 1.0 / (len(scored_M) * scored_M.to(torch.float32))


def fine_tuning_loss(log_probs_N: Tensor, sample_N: Tensor, weights_M: Tensor) -> Tensor:
    """Share in ``(1/M) sum_m (1/|y_m|) sum_t -log p(y_m,t)``.

    Args:
        log_probs_N: log-probabilities of the trained tokens.
        sample_N: which sample of the batch each belongs to.
        weights_M: from `sample_weights`.
    """
    return -(log_probs_N * weights_M.index_select(0, sample_N)).sum()


def bradley_terry_loss(chosen_P: Tensor, rejected_P: Tensor, pairs: int, margin: float = 0.0) -> Tensor:
    """Share in ``-mean log sigmoid(r_chosen - r_rejected - margin)`` over `pairs` pairs (report section 4.2.1).

    The margin is Llama 2's (arXiv 2307.09288), 0 in the report.
    """
    return -F.logsigmoid(chosen_P - rejected_P - margin).sum() / pairs


def dpo_margins(policy_P2: Tensor, reference_P2: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Implicit rewards ``beta·(log pi - log pi_ref)`` of the chosen and of the rejected answers, each ``[P]``.

    Args:
        policy_P2: sequence log-probabilities of (chosen, rejected) under the policy.
        reference_P2: the same under the reference; constants.
        beta: strength of the tie to the reference.
    """
    rewards_P2 = beta * (policy_P2 - reference_P2)
    return rewards_P2[:, 0], rewards_P2[:, 1]


def dpo_loss(policy_P2: Tensor, reference_P2: Tensor, beta: float, pairs: int) -> Tensor:
    """Share in ``-mean log sigmoid(beta·(dlogp_chosen - dlogp_rejected))`` over `pairs` pairs (arXiv 2305.18290)."""
    chosen_P, rejected_P = dpo_margins(policy_P2, reference_P2, beta)
    return -F.logsigmoid(chosen_P - rejected_P).sum() / pairs
