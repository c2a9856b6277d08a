"""Asserts that results are those of a model in float64, up to where rounding may choose other experts.

Legend: T positions, V vocabulary, N tokens of a row, E experts, K chosen experts and the best of the others,
X chosen experts of all layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

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


class Answer(NamedTuple):
    """What a network makes of a row.

    Attributes:
        logits_TV: in float64, whatever the network computes in.
        margin_T: the smallest margin of any choice of experts at each token: of what the router ranks by, the score of
            the last expert chosen less that of the first left out.
        chosen_TX: those experts' ids, of all layers in a row, each layer's in order.
    """

    logits_TV: NDArray[np.float64]
    margin_T: NDArray[np.float64]
    chosen_TX: NDArray[np.int64]


@torch.inference_mode()
def answer(network: Transformer, tokens: Sequence[int]) -> Answer:
    """Run a row as a whole."""
    output = network(torch.tensor([list(tokens)]))
    margin_T = torch.ones(len(tokens), dtype=torch.float64)
    chosen = [torch.empty(len(tokens), 0, dtype=torch.int64)]
    routers = [module for module in network.modules() if isinstance(module, Router)]
    for router, logits_NE in zip(routers, output.router.logits if output.router is not None else (), strict=True):
        if router.top_k == logits_NE.shape[1]:
            continue
        scores_NE = logits_NE.softmax(-1) if router.score == "softmax" else logits_NE.sigmoid()
        best_NK, experts_NK = (scores_NE if router.bias is None else scores_NE + router.bias).topk(router.top_k + 1)
        margin_T = torch.minimum(margin_T, best_NK[:, -2] - best_NK[:, -1])
        chosen.append(experts_NK[:, :-1].sort(1).values)
    logits_TV = network.logits(output.hidden_BTD)[0].double()
    return Answer(logits_TV.numpy(), margin_T.numpy(), torch.cat(chosen, 1).numpy())


def settled_logits(network: Transformer, tokens: Sequence[int], tie: float) -> NDArray[np.float64]:
    """Return the logits after every token [T, V]: NaN from the first token on whose routing is a coin toss.

    Args:
        tie: of router scores; where experts lie closer, either choice is right.
    """
    return _settled(answer(network, tokens), tie, None)


def _settled(exact: Answer, tie: float, rounded: Answer | None) -> NDArray[np.float64]:
    tossed_T = exact.margin_T < tie
    if rounded is not None:
        tossed_T |= (rounded.chosen_TX != exact.chosen_TX).any(1)
    logits_TV = exact.logits_TV.copy()
    logits_TV[np.logical_or.accumulate(tossed_T)] = np.nan
    return logits_TV


def rounding_allowance(settled_TV: NDArray[np.float64], rounded: Answer) -> NDArray[np.float64]:
    """How far off float32 logits may be at each token, [T]: `rounded`, which is PyTorch's float32, measures it.

    Now and then a token multiplies rounding ten times as much as others do: float32 need not be within 1e-4 there.
    Elsewhere 1e-4 is more than float32 needs.
    """
    error_T = np.nan_to_num(np.abs(rounded.logits_TV - settled_TV).max(1))
    return np.clip(1e-4, 3 * error_T, 8 * error_T.max(initial=0))


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
    in_float32: Transformer | None = None,
) -> int:
    """Assert that what sequences got is what the network says of all their tokens at once. Return how many were held.

    Args:
        label: of the failure.
        tie: of router scores; from the first token whose experts lie closer, nothing is held.
        tolerance: absolute.
        growing: the tolerance is that of logits up to ten, and grows with larger ones.
        in_float32: the same network in float32. Where it chooses other experts it has tossed a coin, too; what it adds
            to logits takes the place of `tolerance`.
    """
    held = 0
    for sequence in sequences:
        if not sequence.logits:
            continue
        exact = answer(network, sequence.tokens)
        rounded = None if in_float32 is None else answer(in_float32, sequence.tokens)
        expected_TV = _settled(exact, tie, rounded)
        allowed_T = np.full(len(expected_TV), tolerance)
        if growing:
            allowed_T *= np.maximum(1.0, np.abs(exact.logits_TV).max(1) / 10)
        if rounded is not None:
            allowed_T = rounding_allowance(expected_TV, rounded)
        for position, logits_V in sequence.logits.items():
            if not np.isnan(expected_TV[position]).any():
                np.testing.assert_allclose(
                    logits_V, expected_TV[position], atol=allowed_T[position], rtol=0, err_msg=label
                )
                held += 1
    return held
