"""How a student comes to guess its margin from its first layer's states, and when the guess may stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fulmen_safety.learned.bert import Bert, Guess

_RIDGE = 1.0  # of squared standardised weights, for each text
_CERTAIN = 4.0  # margins beyond it are all alike
_LOST = 0.01  # of the texts that the student takes for harm, the share whose guess may stand all the same


def with_guess(bert: Bert, texts: Sequence[str]) -> Bert:
    """Return the model with a guess, by least squares over texts that it was trained on."""
    first_ND, margin_N = [], []
    for text in texts:
        states = list(bert.states(text))
        first_ND.append(states[0].mean(0))
        margin_N.append(float(states[-1].mean(0) @ bert.head) + bert.bias)
    found_N = np.array(margin_N) > 0
    told_ND, wanted_N = np.array(first_ND, np.float64), np.clip(margin_N, -_CERTAIN, _CERTAIN)
    mean_D, deviation_D = told_ND.mean(0), told_ND.std(0) + 1e-6
    scaled_ND = (told_ND - mean_D) / deviation_D
    square_DD = scaled_ND.T @ scaled_ND + _RIDGE * np.eye(len(mean_D))
    slope_D = np.linalg.solve(square_DD, scaled_ND.T @ (wanted_N - wanted_N.mean())) / deviation_D
    weight_D = slope_D.astype(np.float16).astype(np.float32)
    bias = float(wanted_N.mean() - mean_D @ weight_D)
    guess_N = told_ND @ weight_D + bias
    below = float(np.quantile(guess_N[found_N], _LOST))
    print(f"guesses that stand: {(guess_N[~found_N] < below).mean():.3f} of what it takes for harmless")
    return replace(bert, guess=Guess(weight_D, bias, below))
