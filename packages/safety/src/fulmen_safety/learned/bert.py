"""A small BERT that judges a stretch of text, run by NumPy: it learned the language before it learned of harm, and that
is what a model of labelled rows alone lacks.

Post-norm blocks (arXiv 1810.04805) with GELU by tanh, the mean of the last states over all pieces, one logit. Matrices
are stored in 4 bits with a scale for each 32 inputs of an output (`four_bits`), and computed with in float32. A student
whose weights were rounded so while it learned loses little by it: `bench/raise_training/student.py`.

Legend: T pieces, D width, F inner width of a layer, H attention heads, V vocabulary, G groups of inputs.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fulmen_safety.learned import four_bits
from fulmen_safety.learned.encoder import Layer, Matrix, attention, norm
from fulmen_safety.learned.wordpiece import WordPiece

#: Pieces of a stretch that are looked at: some fifty words.
LONGEST = 64

_EPSILON = 1e-12  # of norms
_MATRICES = ("qkv", "out", "up", "down")
_VECTORS = (
    "qkv_bias", "out_bias", "up_bias", "down_bias", "norm_1", "norm_1_bias", "norm_2", "norm_2_bias",
)  # fmt: skip

Named = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Guess:
    """The margin as the first layer's states tell it: what is plainly harmless need not be read further (arXiv
    2004.12993). It stands if it is below `stands_below`.
    """

    weight: Matrix  # [D]
    bias: float
    stands_below: float

    def of(self, x_TD: Matrix) -> float:
        """Return the margin that the states of the first layer tell."""
        return float(x_TD.mean(0) @ self.weight) + self.bias


@dataclass(frozen=True, slots=True)
class Bert:
    """The model.

    Args:
        wordpiece: its tokenizer.
        words: int8 [V, D], of -7 to 7.
        word_scale: float32 [V, G].
        places: [LONGEST, D], the vector of the first segment among them.
        norm, norm_bias, head: [D].
        bias: of the logit.
        layers: of `encoder.Layer`, whose norms stand behind what they follow here, not before.
        heads: of attention.
        guess: whether the first layer's states suffice; None reads every text to the end.
    """

    wordpiece: WordPiece
    words: NDArray[np.int8]
    word_scale: Matrix
    places: Matrix
    norm: Matrix
    norm_bias: Matrix
    layers: tuple[Layer, ...]
    head: Matrix
    bias: float
    heads: int
    guess: Guess | None = None

    def margin(self, text: str) -> float:
        """Return the logit of a stretch of text, or a guess at it that is low enough to stand."""
        states = self.states(text)
        first_TD = next(states)
        if self.guess and (guessed := self.guess.of(first_TD)) < self.guess.stands_below:
            return guessed
        last_TD = (first_TD, *states)[-1]
        return float(last_TD.mean(0) @ self.head) + self.bias

    def states(self, text: str) -> Iterator[Matrix]:
        """Yield the states [T, D] of a stretch of text after each layer."""
        rows_T = np.array(self.wordpiece.ids(text, LONGEST))
        x_TD = four_bits.widened(self.words[rows_T], self.word_scale[rows_T]) + self.places[: len(rows_T)]
        x_TD = norm(x_TD, self.norm, self.norm_bias, _EPSILON)
        for layer in self.layers:
            x_TD = norm(x_TD + attention(x_TD, layer, self.heads), layer.norm_1, layer.norm_1_bias, _EPSILON)
            inner_TF = _gelu(x_TD @ layer.up + layer.up_bias)
            x_TD = norm(x_TD + inner_TF @ layer.down + layer.down_bias, layer.norm_2, layer.norm_2_bias, _EPSILON)
            yield x_TD


def _gelu(x: Matrix) -> Matrix:
    inner = x * x
    inner *= np.float32(0.044715)
    inner += np.float32(1)
    inner *= x
    inner *= np.float32(np.sqrt(2 / np.pi))
    np.tanh(inner, out=inner)
    inner += np.float32(1)
    inner *= x
    inner *= np.float32(0.5)
    return inner


def tensors(bert: Bert) -> Named:
    """Return the weights by name, as they are stored: matrices in 4 bits, [outputs, inputs], the rest in float16."""
    named: Named = {
        "bert.vocabulary": np.frombuffer(zlib.compress("\n".join(bert.wordpiece.pieces).encode(), 9), np.uint8),
        "bert.words": four_bits.packed(bert.words),
        "bert.word_scale": bert.word_scale.astype(np.float16),
        "bert.bias": np.array([bert.bias], np.float32),
        "bert.heads": np.array([bert.heads], np.int32),
    }
    for name in ("places", "norm", "norm_bias", "head"):
        named[f"bert.{name}"] = getattr(bert, name).astype(np.float16)
    for place, layer in enumerate(bert.layers):
        for name in _MATRICES:
            key = f"bert.layers.{place}.{name}"
            numbers, scale_NG = four_bits.rounded(np.ascontiguousarray(getattr(layer, name).T))
            named[key], named[f"{key}_scale"] = four_bits.packed(numbers), scale_NG.astype(np.float16)
        for name in _VECTORS:
            named[f"bert.layers.{place}.{name}"] = getattr(layer, name).astype(np.float16)
    if bert.guess:
        named["bert.guess"] = bert.guess.weight.astype(np.float16)
        named["bert.guess_bias"] = np.array([bert.guess.bias, bert.guess.stands_below], np.float32)
    return named


def from_tensors(named: Mapping[str, NDArray[np.generic]]) -> Bert:
    """Return the model of stored weights. Raises `KeyError` for one that is missing, `ValueError` for a damaged one."""

    def matrix(name: str) -> Matrix:
        return named[f"bert.{name}"].astype(np.float32)

    def numbers(name: str, scale_NG: Matrix) -> NDArray[np.int8]:
        pairs = named[f"bert.{name}"].astype(np.uint8)
        return four_bits.unpacked(pairs, four_bits.GROUP * scale_NG.shape[1])

    def wide(name: str) -> Matrix:
        scale_NG = matrix(f"{name}_scale")
        return np.ascontiguousarray(four_bits.widened(numbers(name, scale_NG), scale_NG).T)

    def layer(place: int) -> Layer:
        at = f"layers.{place}."
        matrices = {name: wide(at + name) for name in _MATRICES}
        return Layer(**matrices, **{name: matrix(at + name) for name in _VECTORS})

    word_scale = matrix("word_scale")
    return Bert(
        wordpiece=WordPiece(_pieces(named)),
        words=numbers("words", word_scale),
        word_scale=word_scale,
        places=matrix("places"),
        norm=matrix("norm"),
        norm_bias=matrix("norm_bias"),
        layers=tuple(layer(place) for place in range(len({n for n in named if n.endswith(".qkv_scale")}))),
        head=matrix("head"),
        bias=float(matrix("bias")[0]),
        heads=int(matrix("heads")[0]),
        guess=Guess(matrix("guess"), *matrix("guess_bias").tolist()) if "bert.guess" in named else None,
    )


def _pieces(named: Mapping[str, NDArray[np.generic]]) -> list[str]:
    """Return the tokenizer's pieces; in older models they are not compressed."""
    if "bert.pieces" in named:
        return named["bert.pieces"].astype(np.uint8).tobytes().decode().split("\n")
    try:
        return zlib.decompress(named["bert.vocabulary"].astype(np.uint8).tobytes()).decode().split("\n")
    except zlib.error as error:
        raise ValueError(f"the vocabulary is damaged: {error}") from error
