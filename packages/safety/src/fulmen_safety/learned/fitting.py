"""Weights of the linear model from labelled texts, by logistic regression on its own features.

Features that many texts have count less (inverse document frequency). That is multiplied into the weights afterwards,
so the model itself knows nothing of it.

Legend: T texts, B buckets, A buckets of the categories, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_safety.learned.features import features
from fulmen_safety.learned.four_bits import MOST
from fulmen_safety.learned.linear_model import NO_CATEGORIES, LinearModel

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

#: 2**this many rows of weights tell the categories apart: fewer than tell unsafe from safe.
CATEGORY_BITS = 16


def require_scikit_learn() -> Any:
    """Return the module of logistic regression. Raises `UserError` if scikit-learn is not installed."""
    try:
        from sklearn import linear_model
    except ImportError as error:
        remedy = "pip install 'fulmen-safety[train]'"
        raise UserError("training needs scikit-learn", where="fulmen raise train", remedy=remedy) from error
    return linear_model


def design(texts: Sequence[str], bits: int) -> csr_matrix:
    """Return the features of each text by bucket over the root of their number, float32 [T, 2**bits]."""
    from scipy.sparse import csr_matrix

    shift = np.uint32(32 - bits)
    indices, values, ends = [], [], [0]
    for text in texts:
        hashes = features(text).hashes()
        indices.append((hashes >> shift).astype(np.int32))
        values.append(np.full(len(hashes), 1 / np.sqrt(max(1, len(hashes))), np.float32))
        ends.append(ends[-1] + len(hashes))
    matrix = csr_matrix(
        (np.concatenate(values), np.concatenate(indices), np.array(ends)), shape=(len(texts), 1 << bits)
    )
    matrix.sum_duplicates()
    return matrix


def folded(counts_TB: csr_matrix, bits: int) -> csr_matrix:
    """Return the features by bucket as if there were no more than 2**bits buckets."""
    from scipy.sparse import csr_matrix

    shift = max(0, counts_TB.shape[1].bit_length() - 1 - bits)
    shape = (counts_TB.shape[0], counts_TB.shape[1] >> shift)
    fewer = csr_matrix((counts_TB.data.copy(), counts_TB.indices >> shift, counts_TB.indptr.copy()), shape=shape)
    fewer.sum_duplicates()
    return fewer


def rarity(counts_TB: csr_matrix) -> NDArray[np.float32]:
    """Return the inverse document frequency of each bucket, float32 [B]; 0 for those in no text."""
    texts = np.bincount(counts_TB.indices, minlength=counts_TB.shape[1])
    return np.where(texts > 0, np.log((1 + counts_TB.shape[0]) / (1 + texts)) + 1, 0).astype(np.float32)


def fit_head(
    counts_TB: csr_matrix,
    rare_B: NDArray[np.float32],
    wanted_T: NDArray[np.bool_],
    weight_T: NDArray[np.float64],
    *,
    strength: float,
) -> tuple[NDArray[np.float32], float]:
    """Return the weights [B] and the bias that tell wanted texts from others, both sides weighing the same.

    Args:
        strength: of the data against the regulariser, scikit-learn's ``C`` for texts of mean weight 1.
    """
    weight = weight_T.astype(np.float64).copy()
    for side in (wanted_T, ~wanted_T):
        weight[side] *= len(weight) / 2 / weight[side].sum()
    regression = require_scikit_learn().LogisticRegression(C=strength, tol=1e-3, max_iter=200)
    scaled = counts_TB.multiply(rare_B[None, :]).tocsr()
    regression.fit(scaled, wanted_T, sample_weight=weight)
    return (regression.coef_[0] * rare_B).astype(np.float32), float(regression.intercept_[0])


def quantised(
    heads: Sequence[tuple[NDArray[np.float32], float]], categories: tuple[str, ...], window: int
) -> LinearModel:
    """Return the heads as a model, not yet calibrated: head 0 in 8 bits, the categories' in 4. A category's weights of
    more than half the largest are cut: the others round better, and the likeliest category stays the same one.
    """
    weights_B1, scale_1 = _rounded(heads[0][0][:, None], 127, 1.0)
    others_AC = np.stack([weights for weights, _ in heads[1:]], 1) if heads[1:] else NO_CATEGORIES.astype(np.float32)
    weights_AC, scale_C = _rounded(others_AC, MOST, 0.5)
    scale_H, bias_H = np.concatenate([scale_1, scale_C]), np.array([bias for _, bias in heads], np.float32)
    return LinearModel(weights_B1[:, 0], weights_AC, scale_H, bias_H, categories, {}, window)


def _rounded(weights_BH: NDArray[np.float32], most: int, kept: float) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return numbers of -most to most, and each column's scale: the largest number stands for `kept` of its reach."""
    reach_H = kept * np.abs(weights_BH).max(0)
    scale_H = np.maximum(reach_H / most, 1e-12).astype(np.float32)
    return np.rint(weights_BH / scale_H).clip(-most, most).astype(np.int8), scale_H
