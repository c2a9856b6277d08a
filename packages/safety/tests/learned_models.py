"""Models for tests: random weights, or a dozen words with a weight each."""

from __future__ import annotations

import numpy as np

from fulmen_safety.learned.calibration import Curve
from fulmen_safety.learned.features import features
from fulmen_safety.learned.linear_model import LinearModel

CURVE = Curve(slope=1.0, offset=0.0, slope_interval=(1.0, 1.0), offset_interval=(0.0, 0.0), examples=0)


def random_model(seed: int, *, window: int = 30, categories: tuple[str, ...] = ("violent_crime",)) -> LinearModel:
    """Return a model of random weights, spiteful to any text."""
    random = np.random.default_rng(seed)
    heads = 1 if len(categories) == 1 else 1 + len(categories)
    weights = random.integers(-127, 128, (1 << 12, heads)).astype(np.int8)
    scale, bias = np.full(heads, 0.01, np.float32), np.full(heads, 0.3, np.float32)
    return LinearModel(weights, scale, bias, categories, {"*": CURVE, "zh": CURVE}, window)


def word_model(weights: dict[str, int], *, window: int = 40) -> LinearModel:
    """Return a model in which these words alone count: 127 says unsafe, -127 safe."""
    table = np.zeros((1 << 18, 1), np.int8)
    for word, weight in weights.items():
        table[features(word).words[0][0] >> np.uint32(14), 0] = weight
    ones = np.ones(1, np.float32)
    return LinearModel(table, ones, -ones, ("violent_crime",), {"*": CURVE}, window)
