"""A language model of characters that knows texts by their n-grams: counts in hashed tables, smoothed downwards.

    p_n(c | h) = (count(h c) + K * p_{n-1}(c | h')) / (count(h) + K),    h' = h without its first character

which is MacKay and Peto's (1995) Dirichlet smoothing. Vectorised over the text, so that no loop runs over characters.
It serves as the perplexity filter of CCNet (Wenzek et al. 2020, arXiv 1911.00359) for any language without a tokenizer.

Legend: O orders, S slots of a table, N characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.float32]

ORDERS = 4
_SMOOTHING = 8.0
_FLOOR = 1.0 / 20_000  # of a character that was never seen
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_BLANKS = re.compile(r"\s+")
_DIGITS = re.compile(r"\d")
_LONGEST = 1 << 20  # characters at once: memory, not meaning


class NgramModel:
    """Counts of n-grams of 1 to `ORDERS` characters.

    Args:
        counts_OS: float32, a power of two slots.
        total: characters counted.
    """

    def __init__(self, counts_OS: NDArray[np.float32], total: float) -> None:
        self.counts_OS, self.total = counts_OS, total
        self._mask = np.uint64(counts_OS.shape[1] - 1)

    @classmethod
    def fit(cls, texts: Iterable[str], slot_bits: int) -> NgramModel:
        """Count the n-grams of `texts` in tables of ``2 ** slot_bits`` slots."""
        counts_OS = np.zeros((ORDERS, 1 << slot_bits), np.float64)
        model = cls(np.zeros((ORDERS, 1 << slot_bits), np.float32), 0.0)
        for text in texts:
            for slots_ON in model._slots(text):
                for order, slots_N in enumerate(slots_ON):
                    counts_OS[order] += np.bincount(slots_N, minlength=counts_OS.shape[1])
                model.total += slots_ON.shape[1]
        model.counts_OS = counts_OS.astype(np.float32)
        return model

    def bits_per_character(self, text: str) -> float:
        """Return the mean number of bits that a character of `text` costs; 0 for one without characters."""
        bits, characters = 0.0, 0
        for slots_ON in self._slots(text):
            bits += float(self._bits(slots_ON).sum(dtype=np.float64))
            characters += slots_ON.shape[1]
        return bits / characters if characters else 0.0

    def _bits(self, slots_ON: NDArray[np.intp]) -> Bits:
        p_N = np.full(slots_ON.shape[1], _FLOOR, np.float32)
        for order in range(ORDERS):
            seen_N = self.counts_OS[order][slots_ON[order]]
            history_N = np.full_like(seen_N, self.total)
            if order > 0:
                history_N[1:] = self.counts_OS[order - 1][slots_ON[order - 1, :-1]]
                history_N[0] = 0.0
                # where slots are shared a history may seem rarer than what follows it
                np.maximum(history_N, seen_N, out=history_N)
            p_N = (seen_N + np.float32(_SMOOTHING) * p_N) / (history_N + np.float32(_SMOOTHING))
        return -np.log2(p_N)

    def _slots(self, text: str) -> Iterable[NDArray[np.intp]]:
        """Yield, for each stretch of the text in its compared form, the slot of the n-gram that ends at each place."""
        shown = _DIGITS.sub("0", _BLANKS.sub(" ", text.lower()))
        for start in range(0, len(shown), _LONGEST):
            piece = f" {shown[start : start + _LONGEST]}"
            codes_N = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
            slots_ON = np.empty((ORDERS, len(codes_N) - 1), np.intp)
            hash_N = np.zeros(len(codes_N), np.uint64)
            for order in range(ORDERS):
                shifted_N = np.zeros_like(hash_N)
                shifted_N[order:] = codes_N[: len(codes_N) - order]
                hash_N = (hash_N ^ (shifted_N + np.uint64(order + 1))) * _MULTIPLIER
                hash_N ^= hash_N >> np.uint64(29)
                slots_ON[order] = ((hash_N >> np.uint64(20)) & self._mask)[1:]
            yield slots_ON
