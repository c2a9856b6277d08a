"""The truth: the checkpoint's logits in float64, whole rows at once, and where even they hang on the toss of a coin.

Legend: T positions, V vocabulary, N tokens of a row, E experts, K chosen experts and the best of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.router import Router
from fulmen_core.model.transformer import Transformer

#: The last expert chosen and the first left out may swap places by rounding where their scores lie closer than this,
#: in standard deviations of the scores of all.
ROUTING_TIE = 1e-4


class Reference:
    """A checkpoint in float64 on the CPU.

    Args:
        model: a model directory, or a model, which is not changed.
        tie: router scores that lie closer than this are taken for a toss. What is compared in fewer bits needs more.
    """

    def __init__(self, model: Path | Transformer, tie: float = ROUTING_TIE) -> None:
        self.network = load_model(model, torch.float64) if isinstance(model, Path) else model
        self.network.set_experts_implementation("dense")  # grouped products know no float64
        self._biases = [
            0.0 if router.bias is None else router.bias
            for router in self.network.modules()
            if isinstance(router, Router)
        ]
        self.tie = tie

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the logits after every token, [T, V], and which of them may be judged, [T].

        What a token's experts gave is in the keys and values of the layers above, which all later tokens see: from a
        toss on, nothing is judged; after one in the last layer, that token alone is not.
        """
        output = self.network(torch.tensor([list(tokens)]))
        config = self.network.config
        fair_T = np.ones(len(tokens), bool)
        top_k = config.num_experts_per_tok
        if output.router is not None and top_k < config.num_experts:
            last = len(output.router.logits) - 1
            for layer, (logits_NE, bias_E) in enumerate(zip(output.router.logits, self._biases, strict=True)):
                scores_NE = (logits_NE if config.router_score == "softmax" else logits_NE.sigmoid()) + bias_E
                best_NK = scores_NE.topk(top_k + 1).values
                tossed_T = ((best_NK[:, -2] - best_NK[:, -1]) / scores_NE.std(-1) < self.tie).numpy()
                fair_T &= ~(tossed_T if layer == last else np.logical_or.accumulate(tossed_T))
        logits_TV: NDArray[np.float64] = self.network.logits(output.hidden_BTD)[0].double().numpy()
        return logits_TV, fair_T

    def greedy(self, prompt: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        """Return the likeliest continuation of `prompt` and, for each token, by how much it leads the second.

        A token whose routing is a toss leads by nothing.
        """
        tokens, margins = list(prompt), []
        for _ in range(count):
            logits_TV, fair_T = self.logits(tokens)
            best = np.argsort(logits_TV[-1])[::-1]
            lead = float(logits_TV[-1, best[0]] - logits_TV[-1, best[1]])
            margins.append(lead if fair_T[-1] else 0.0)
            tokens.append(int(best[0]))
        return tokens[len(prompt) :], margins
