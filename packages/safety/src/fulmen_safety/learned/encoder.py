"""A small Transformer over words, run by NumPy: it sees what a bag of n-grams cannot, who does what to whom.

Pre-norm blocks with full attention, learned places, the mean of the last states, one logit (arXiv 1706.03762,
2002.04745). Words are looked up by their hash; those that are not in the vocabulary share a row.

Legend: T words, D width, H attention heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Words of a stretch that are looked at.
LONGEST = 128
WIDTH = 64
HEADS = 4

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one block: [D, 3 D] and so on, as `x @ weight + bias`."""

    norm_1: Matrix
    norm_1_bias: Matrix
    qkv: Matrix
    qkv_bias: Matrix
    out: Matrix
    out_bias: Matrix
    norm_2: Matrix
    norm_2_bias: Matrix
    up: Matrix
    up_bias: Matrix
    down: Matrix
    down_bias: Matrix


@dataclass(frozen=True, slots=True)
class Encoder:
    """The model.

    Args:
        vocabulary_V: uint32, ascending: hashes of the words that have a row.
        words: int8 [V + 1, D], the last row for all other words.
        word_scale: float32 [V + 1, 1].
        places: [LONGEST, D].
        norm, norm_bias, head: [D].
        bias: of the logit.
    """

    vocabulary_V: NDArray[np.uint32]
    words: NDArray[np.int8]
    word_scale: Matrix
    places: Matrix
    layers: tuple[Layer, ...]
    norm: Matrix
    norm_bias: Matrix
    head: Matrix
    bias: float

    def margin(self, hashes_T: NDArray[np.uint32]) -> float:
        """Return the logit of a stretch of words, given by their hashes; 0 without any."""
        if not len(hashes_T):
            return 0.0
        rows_T = rows_of(self.vocabulary_V, hashes_T[:LONGEST])
        x_TD = self.words[rows_T] * self.word_scale[rows_T] + self.places[: len(rows_T)]
        for layer in self.layers:
            x_TD = x_TD + attention(norm(x_TD, layer.norm_1, layer.norm_1_bias), layer, HEADS)
            inner = np.maximum(norm(x_TD, layer.norm_2, layer.norm_2_bias) @ layer.up + layer.up_bias, 0)
            x_TD = x_TD + inner @ layer.down + layer.down_bias
        mean_D = norm(x_TD, self.norm, self.norm_bias).mean(0)
        return float(mean_D @ self.head) + self.bias


def rows_of(vocabulary_V: NDArray[np.uint32], hashes_T: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Return the row of each word, V for those that have none."""
    place = np.minimum(np.searchsorted(vocabulary_V, hashes_T), len(vocabulary_V) - 1)
    return np.where(vocabulary_V[place] == hashes_T, place, len(vocabulary_V))


def norm(x_TD: Matrix, weight: Matrix, bias: Matrix, epsilon: float = 1e-5) -> Matrix:
    """Return the rows at mean 0 and variance 1, times a weight and with a bias (arXiv 1607.06450)."""
    centred = x_TD - _mean(x_TD)
    centred *= 1 / np.sqrt(_mean(centred * centred) + np.float32(epsilon))
    centred *= weight
    centred += bias
    return centred


def _mean(x_TD: Matrix) -> Matrix:
    """Return the mean of each row, [T, 1]: as a product it takes a third of the time of `numpy.mean`."""
    width = x_TD.shape[1]
    return np.asarray(x_TD @ np.full((width, 1), 1 / width, np.float32))


def attention(x_TD: Matrix, layer: Layer, count: int) -> Matrix:
    """Return what each place takes from all of them, with `count` heads: [T, D]."""
    length, width = x_TD.shape
    size = width // count
    heads = (x_TD @ layer.qkv + layer.qkv_bias).reshape(length, 3, count, size).transpose(1, 2, 0, 3)
    heads = np.ascontiguousarray(heads)  # products of strided matrices take three times as long
    heads[0] *= np.float32(size**-0.5)
    scores_HTT = heads[0] @ heads[1].transpose(0, 2, 1)
    scores_HTT -= scores_HTT.max(2, keepdims=True)
    np.exp(scores_HTT, out=scores_HTT)
    mixed = scores_HTT @ heads[2]
    mixed /= scores_HTT.sum(2, keepdims=True)
    return np.asarray(mixed.transpose(1, 0, 2).reshape(length, width) @ layer.out + layer.out_bias)


def tensors(encoder: Encoder) -> dict[str, NDArray[np.generic]]:
    """Return the weights by name, as they are stored: float16 but for the words and their scales."""
    named: dict[str, NDArray[np.generic]] = {
        "encoder.vocabulary": encoder.vocabulary_V,
        "encoder.words": encoder.words,
        "encoder.word_scale": encoder.word_scale,
        "encoder.bias": np.array([encoder.bias], np.float32),
    }
    for name in ("places", "norm", "norm_bias", "head"):
        named[f"encoder.{name}"] = getattr(encoder, name).astype(np.float16)
    for place, layer in enumerate(encoder.layers):
        for name in Layer.__dataclass_fields__:
            named[f"encoder.layers.{place}.{name}"] = getattr(layer, name).astype(np.float16)
    return named


def from_tensors(named: Mapping[str, NDArray[np.generic]]) -> Encoder:
    """Return the encoder of stored weights. Raises `KeyError` for one that is missing."""

    def matrix(name: str) -> Matrix:
        return named[f"encoder.{name}"].astype(np.float32)

    count = len({name.split(".")[2] for name in named if name.startswith("encoder.layers.")})
    return Encoder(
        vocabulary_V=named["encoder.vocabulary"].astype(np.uint32),
        words=named["encoder.words"].astype(np.int8),
        word_scale=matrix("word_scale"),
        places=matrix("places"),
        layers=tuple(
            Layer(**{name: matrix(f"layers.{place}.{name}") for name in Layer.__dataclass_fields__})
            for place in range(count)
        ),
        norm=matrix("norm"),
        norm_bias=matrix("norm_bias"),
        head=matrix("head"),
        bias=float(matrix("bias")[0]),
    )
