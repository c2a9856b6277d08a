"""Embeddings: what an index asks of whoever makes them, and how it remembers who did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: N texts, D dimensions: float32 [N, D], each row of length 1, or 0 for a text in which there is nothing to embed.
Vectors_ND = NDArray[np.float32]


class Embedder(Protocol):
    """Makes vectors whose inner product says how alike two texts are.

    Attributes:
        floor: inner products up to it say nothing.
    """

    floor: float

    def identity(self) -> Mapping[str, Any]:
        """What tells its vectors from another embedder's, as JSON."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> Vectors_ND:
        """Vectors of passages."""
        ...

    def embed_query(self, text: str, timeout: float | None = None) -> NDArray[np.float32]:
        """The vector of a question, float32 [D], within `timeout` seconds if it has to ask somebody."""
        ...


def normalised(vectors_ND: NDArray[np.float32]) -> Vectors_ND:
    """Rows of length 1; a row of zeros stays so."""
    lengths_N = np.linalg.norm(vectors_ND, axis=-1, keepdims=True)
    return np.asarray(np.divide(vectors_ND, lengths_N, out=np.zeros_like(vectors_ND), where=lengths_N > 0))
