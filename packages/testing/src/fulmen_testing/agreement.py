"""Asserts that results are those of a model in float64, up to where rounding may choose other experts.

Legend: T positions, V vocabulary, N tokens of a row, E experts, K chosen experts and the best of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.router import Router
from fulmen_core.model.transformer import Transformer


class Played(Protocol):
    """A sequence that was run: its tokens, and the logits it got after some of them."""

    tokens: list[int]
    logits: dict[int, NDArray[np.float32]]


@torch.inference_mode()
def logits_and_margins(network: Transformer, tokens: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the network's logits [T, V], and the smallest margin of any choice of experts at each token [T].

    The margin is of what the router ranks by: the score of the last expert chosen less that of the first left out.
    """
    output = network(torch.tensor([list(tokens)]))
    margin_T = torch.ones(len(tokens), dtype=torch.float64)
    routers = [module for module in network.modules() if isinstance(module, Router)]
    for router, logits_NE in zip(routers, output.router.logits if output.router is not None else (), strict=True):
        if router.top_k == logits_NE.shape[1]:
            continue
        scores_NE = logits_NE.softmax(-1) if router.score == "softmax" else logits_NE.sigmoid()
        best_NK = (scores_NE if router.bias is None else scores_NE + router.bias).topk(router.top_k + 1).values
        margin_T = torch.minimum(margin_T, best_NK[:, -2] - best_NK[:, -1])
    logits_TV: NDArray[np.float64] = network.logits(output.hidden_BTD)[0].double().numpy()
    return logits_TV, margin_T.numpy()


def settled_logits(network: Transformer, tokens: Sequence[int], tie: float) -> NDArray[np.float64]:
    """Return the logits after every token [T, V]: NaN from the first token on whose routing is a coin toss.

    Args:
        tie: of router scores; where experts lie closer, either choice is right.
    """
    logits_TV, margin_T = logits_and_margins(network, tokens)
    logits_TV[np.logical_or.accumulate(margin_T < tie)] = np.nan
    return logits_TV


def in_float64(model: Path) -> Transformer:
    """Load a model directory as what results are held against."""
    network = load_model(model, torch.float64)
    network.set_experts_implementation("dense")  # grouped products know no float64
    return network


def assert_equal(
    network: Transformer,
    sequences: Iterable[Played],
    label: str = "",
    *,
    tie: float,
    tolerance: float = 1e-4,
    growing: bool = False,
) -> int:
    """Assert that what sequences got is what the network says of all their tokens at once. Return how many were held.

    Args:
        label: of the failure.
        tie: of router scores; from the first token whose experts lie closer, nothing is held.
        tolerance: absolute.
        growing: the tolerance is that of logits up to ten, and grows with larger ones.
    """
    held = 0
    for sequence in sequences:
        if not sequence.logits:
            continue
        expected_TV = settled_logits(network, sequence.tokens, tie)
        for position, logits_V in sequence.logits.items():
            if not np.isnan(expected_TV[position]).any():
                scale = max(1.0, float(np.abs(expected_TV[position]).max()) / 10) if growing else 1.0
                np.testing.assert_allclose(
                    logits_V, expected_TV[position], atol=tolerance * scale, rtol=0, err_msg=label
                )
                held += 1
    return held
