"""Where vectors come from: this package's own n-grams, a function of the user's, or a server's model.

Legend: N texts, D dimensions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fulmen_raise_semantic.hashed import HashedNgrams
from fulmen_safety import UserError
from fulmen_safety.remote import JsonEndpoint, Patience, RemoteEmbeddings, read_key

Vectors_ND = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors.

    Attributes:
        identity: what the vectors depend on beside the texts; vectors of one identity may be compared and kept.
        local: whether it costs nothing to speak of, so that nothing is worth keeping.
    """

    identity: str
    local: bool

    def embed(self, texts: Sequence[str]) -> Vectors_ND:
        """Return a vector of length 1 for each text, or of zeros for one that says nothing: float32 [N, D].

        Raises:
            RemoteFailure: the server could not be asked.
            ValueError: what came are no vectors.
        """
        ...


class FunctionEmbedder:
    """A function ``(list of texts) -> array [N, D]``, named as ``"module:function"``."""

    local = False

    def __init__(self, name: str, where: str) -> None:
        module, _, attribute = name.partition(":")
        try:
            function: Callable[[list[str]], Any] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"there is no function {name!r} to embed with", where=where, remedy=str(error)) from error
        self.identity, self._function = f"function {name}", function

    def embed(self, texts: Sequence[str]) -> Vectors_ND:
        """See `Embedder.embed`."""
        return unit(np.asarray(self._function(list(texts)), np.float32), len(texts))


class ServerEmbedder:
    """A model behind ``/v1/embeddings``."""

    local = False

    def __init__(self, url: str, model: str, key_file: str, patience: Patience) -> None:
        self._embeddings = RemoteEmbeddings(JsonEndpoint(url, read_key(key_file)), model)
        self._patience = patience
        self.identity = f"server model {model}"

    def embed(self, texts: Sequence[str]) -> Vectors_ND:
        """See `Embedder.embed`."""
        return unit(np.asarray(self._embeddings(texts, self._patience), np.float32), len(texts))


class HashedEmbedder:
    """N-grams of characters, weighted by how rare they are among the examples. Says how alike texts are written."""

    local = True

    def __init__(self, texts: Sequence[str]) -> None:
        self._ngrams = HashedNgrams.fit(texts)
        self.identity = "hashed n-grams"

    def embed(self, texts: Sequence[str]) -> Vectors_ND:
        """See `Embedder.embed`."""
        return unit(self._ngrams.vectors(texts), len(texts))


def unit(vectors_ND: Vectors_ND, texts: int) -> Vectors_ND:
    """The vectors at length 1; zeros stay zeros.

    Raises:
        ValueError: they are not `texts` vectors of finite numbers.
    """
    if vectors_ND.ndim != 2 or len(vectors_ND) != texts or not np.isfinite(vectors_ND).all():
        raise ValueError(f"the embedder gave an array of shape {vectors_ND.shape} for {texts} texts, or broken numbers")
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.asarray(vectors_ND / np.where(lengths_N1 > 0, lengths_N1, 1.0), np.float32)
