"""An embedder that needs no model: hashed n-grams of characters, TF-IDF weights, a random projection.

A text's features are its words, the stretches of 3 to 5 characters within a word (its edges marked by spaces), and the
stretches of 1 to 3 characters in scripts without spaces. Each feature is hashed to a bucket (Weinberger et al. 2009,
arXiv:0902.2206), weighted ``(1 + log tf) * idf``, and projected by a sparse matrix of signs that is computed from the
bucket's number (Achlioptas 2003), so that nothing but the idf is stored. The inner product of two vectors is the cosine
of their TF-IDF vectors within about ``1 / sqrt(D)``.

What it gives: forms of a word, misspellings, compounds, and Chinese words without a dictionary. What it does not give:
meaning. Two texts that share no letters are strangers to it; synonyms and translations need a trained model.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_tool_retrieval.embedder import Vectors_ND, normalised
from fulmen_tool_retrieval.text_forms import folded

BUCKETS = 1 << 18
DIMENSIONS = 2048
_SIGNS = 8  # entries of a bucket's column that are not 0
_WORD_LENGTHS, _UNSPACED_LENGTHS = range(3, 6), range(1, 4)
_LONGEST_WORD = 64  # "words" beyond are addresses or data; their stretches stand for them

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))
_SPACE = np.uint64(32)
#: First and last code point of scripts without spaces; the same as `text_forms.UNSPACED`.
_UNSPACED_RANGES = (
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7AF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


class HashedNgrams:
    """The embedder under one table of inverse document frequencies.

    Args:
        idf: float32 [BUCKETS], from `fit` or `load`.
    """

    floor = 3 / DIMENSIONS**0.5  # three standard deviations of the inner product of two texts with nothing in common

    def __init__(self, idf: NDArray[np.float32]) -> None:
        self._idf = idf

    @classmethod
    def fit(cls, texts: Sequence[str]) -> HashedNgrams:
        """Count in how many of `texts` each bucket occurs: ``idf = 1 + log((1 + N) / (1 + df))``."""
        frequencies = np.zeros(BUCKETS, np.int64)
        for text in texts:
            frequencies[np.unique(buckets_of(text))] += 1
        return cls((1 + np.log((1 + len(texts)) / (1 + frequencies))).astype(np.float32))

    @classmethod
    def load(cls, data: bytes) -> HashedNgrams:
        """The embedder that `dump` wrote.

        Raises:
            ValueError: it did not.
        """
        try:
            idf = np.frombuffer(zlib.decompressobj().decompress(data, BUCKETS * 2 + 1), np.float16)
        except zlib.error as error:
            raise ValueError(f"the table of frequencies is damaged ({error})") from error
        if idf.shape != (BUCKETS,) or not np.isfinite(idf).all():
            raise ValueError("the table of frequencies is damaged")
        return cls(idf.astype(np.float32))

    def dump(self) -> bytes:
        """The table of frequencies, float16 and packed; vectors made before and after differ within its rounding."""
        return zlib.compress(self._idf.astype(np.float16).tobytes())

    def identity(self) -> Mapping[str, Any]:
        """See `Embedder.identity`."""
        return {"kind": "hashed", "dimensions": DIMENSIONS}

    def embed_documents(self, texts: Sequence[str]) -> Vectors_ND:
        """See `Embedder.embed_documents`."""
        vectors_ND = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            vectors_ND[row] = self._project(text)
        return normalised(vectors_ND)

    def embed_query(self, text: str, timeout: float | None = None) -> NDArray[np.float32]:  # noqa: ARG002 - asks nobody
        """See `Embedder.embed_query`."""
        return normalised(self._project(text))

    def _project(self, text: str) -> NDArray[np.float32]:
        buckets, counts = np.unique(buckets_of(text), return_counts=True)
        weights = (1 + np.log(counts)) * self._idf[buckets]
        entries = buckets[:, None] * np.uint64(_SIGNS) + np.arange(_SIGNS, dtype=np.uint64)
        keys = _mixed(entries.astype(np.uint64, copy=False))
        signs = np.where(keys >> np.uint64(63), 1.0, -1.0)
        places = (keys % np.uint64(DIMENSIONS)).astype(np.intp)
        sums = np.bincount(places.ravel(), (signs * weights[:, None]).ravel(), minlength=DIMENSIONS)
        return sums.astype(np.float32)


def buckets_of(text: str) -> NDArray[np.uint64]:
    """The bucket of every feature of `text`, with repetitions, in no order."""
    shown = "".join(char if char.isalnum() else " " for char in folded(text))
    line = f" {' '.join(shown.split())} ".encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(line, np.uint32).astype(np.uint64)
    spaces, unspaced = codes == _SPACE, _is_unspaced(codes)
    powers = np.cumprod(np.full(len(codes) + 1, _BASE)) * _INVERSE
    inverses = np.cumprod(np.full(len(codes) + 1, _INVERSE)) * _BASE
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * powers[: len(codes)])])
    space_sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(spaces)])
    unspaced_sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(unspaced)])

    def hashes(starts: NDArray[np.intp], ends: NDArray[np.intp]) -> NDArray[np.uint64]:
        """A hash of ``codes[start:end]`` for each pair, the same wherever it stands in the text."""
        return _mixed((sums[ends] - sums[starts]) * inverses[starts] + (ends - starts).astype(np.uint64))

    found = []
    for length in sorted({*_WORD_LENGTHS, *_UNSPACED_LENGTHS}):
        starts = np.arange(max(0, len(codes) - length + 1))
        ends = starts + length
        foreign = unspaced_sums[ends] - unspaced_sums[starts]
        keep = np.zeros(len(starts), bool)
        if length in _UNSPACED_LENGTHS:
            keep |= foreign == length
        if length in _WORD_LENGTHS:
            keep |= (foreign == 0) & (space_sums[ends - 1] - space_sums[starts + 1] == 0)
        found.append(hashes(starts[keep], ends[keep]))
    edges = np.flatnonzero(spaces)
    starts, ends = edges[:-1] + 1, edges[1:]
    words = (unspaced_sums[ends] - unspaced_sums[starts] == 0) & (ends - starts <= _LONGEST_WORD) & (ends > starts)
    found.append(hashes(starts[words], ends[words]) ^ _BASE)  # a word is another feature than the same letters inside
    return np.concatenate(found) % np.uint64(BUCKETS)


def _is_unspaced(codes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    inside = np.zeros(len(codes), bool)
    for first, last in _UNSPACED_RANGES:
        inside |= (codes >= first) & (codes <= last)
    return inside


def _mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit of a key changes half of the result's."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(keys ^ (keys >> np.uint64(31)))
