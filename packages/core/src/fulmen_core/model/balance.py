"""The three balance losses of the Yi-Lightning report (section 2.2) and the router z-loss (arXiv 2202.08906).

For one MoE layer with E experts, batch B, top-k K, router probabilities p_i(x), and s_i(x) = 1 if expert i is among the
K selected for token x, else 0. The probabilities of a sigmoid router are its scores divided by their sum over experts.
The report writes top-1 (arg max); the generalisation divides by K, so that sum f_i = 1:

    f_i(B) = 1/(K|B|) sum_{x in B} s_i(x)            P_i(B) = 1/|B| sum_{x in B} p_i(x)

    L_ST  = a_ST  * E   * sum_i f_i(B) P_i(B)                                              over all experts
    L_EP  = a_EP  * mean over groups g of      N_g * sum_{i in g} f_i(B_g) P_i(B_g)        (eq. 1)
    L_PEP = a_PEP * mean over partitions p of  N_p * sum_{i in p} f_i(B_p) P_i(B_p)        (eq. 2)

The E experts lie in `expert_groups` equal groups of N_g adjacent experts, each in `partitions` equal parts of N_p. The
report gives the loss of one group; the mean over groups is what averaging over the ranks that hold them gives.
Gradients flow through P alone, f is a count. The report does not say which tokens are "allocated to" a group (B_g) or
partition (B_p); `token_set` chooses:

- "routed": B_g are the tokens with at least one selected expert in g (B_p: in p). The loss is 1 per unit a where those
  tokens' choices and probability lie inside the group and are even there.
- "resident": all tokens of this rank, for every group and partition. Even routing gives (N_g/E)² and (N_p/E)².
- "aggregate": balance *between* groups and partitions, DeepSeekMoE's device loss (arXiv 2401.06066): with F_g the sum
  of f_i(B) over the experts of g, and P_g likewise, G * sum_g F_g P_g over the G groups; for L_PEP over all partitions
  of all groups. Even routing gives 1.

An empty B_g contributes 0. The z-loss is mean_x (logsumexp_i logits_i(x))².

Legend: L MoE layers, N tokens, E experts, K experts per token, C cells (groups, or partitions), I experts in a cell.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fulmen_core.model.config import BalanceConfig
from fulmen_core.model.router import RouterStatistics


class BalanceLosses(NamedTuple):
    """The losses of one forward pass, scalars.

    Attributes:
        total: what to add to the language-model loss: the weighted losses, summed over MoE layers as Switch does.
        switch, group, partition, z: each per unit of its alpha, mean over MoE layers, without gradient: for reading.
    """

    total: Tensor
    switch: Tensor
    group: Tensor
    partition: Tensor
    z: Tensor


def balance_losses(router: RouterStatistics, config: BalanceConfig, top_k: int) -> BalanceLosses:
    """The weighted sum of the balance losses over the tokens that `router.valid_N` admits, and each one unweighted.

    Raises:
        ValueError: the experts do not divide into the config's groups and partitions.
    """
    logits_LNE = torch.stack(router.logits)
    probs_LNE = router.probabilities()
    chosen_LNE = torch.zeros_like(probs_LNE).scatter(2, torch.stack(router.selected), 1.0)
    z_LN = logits_LNE.logsumexp(-1) ** 2
    if router.valid_N is None:
        valid_N = logits_LNE.new_ones(logits_LNE.shape[1])
    else:
        valid_N = router.valid_N.to(logits_LNE.dtype)
        probs_LNE = probs_LNE * valid_N[:, None]
        chosen_LNE = chosen_LNE * valid_N[:, None]
        z_LN = z_LN * valid_N
    tokens = valid_N.sum().clamp(min=1)
    cells = config.expert_groups * config.partitions
    if logits_LNE.shape[-1] % cells:
        raise ValueError(f"{logits_LNE.shape[-1]} experts do not divide into {cells} partitions")

    switch_L = _within(chosen_LNE, probs_LNE, 1, top_k, "resident", tokens)
    group_L = _within(chosen_LNE, probs_LNE, config.expert_groups, top_k, config.token_set, tokens)
    partition_L = _within(chosen_LNE, probs_LNE, cells, top_k, config.token_set, tokens)
    z_L = z_LN.sum(1) / tokens
    total = (
        config.switch_alpha * switch_L
        + config.group_alpha * group_L
        + config.partition_alpha * partition_L
        + config.z_alpha * z_L
    ).sum()
    return BalanceLosses(total, *(loss_L.detach().mean() for loss_L in (switch_L, group_L, partition_L, z_L)))


def _within(
    chosen_LNE: Tensor,
    probs_LNE: Tensor,
    cells: int,
    top_k: int,
    token_set: Literal["routed", "resident", "aggregate"],
    tokens: Tensor,
) -> Tensor:
    """One of the losses per unit alpha, [L], for experts in `cells` equal cells; one cell of all tokens is L_ST."""
    if token_set == "aggregate":
        share_LC = torch.unflatten(chosen_LNE.sum(1) / (top_k * tokens), -1, (cells, -1)).sum(-1)
        mass_LC = torch.unflatten(probs_LNE.sum(1) / tokens, -1, (cells, -1)).sum(-1)
        return cells * (share_LC * mass_LC).sum(-1)
    chosen_LNCI = torch.unflatten(chosen_LNE, -1, (cells, -1))
    probs_LNCI = torch.unflatten(probs_LNE, -1, (cells, -1))
    if token_set == "routed":
        member_LNC = chosen_LNCI.amax(-1)
        probs_LNCI = probs_LNCI * member_LNC[..., None]
        tokens = member_LNC.sum(1).clamp(min=1)[..., None]
    share_LCI = chosen_LNCI.sum(1) / (top_k * tokens)
    mass_LCI = probs_LNCI.sum(1) / tokens
    return share_LCI.shape[-1] * (share_LCI * mass_LCI).sum(-1).mean(-1)
