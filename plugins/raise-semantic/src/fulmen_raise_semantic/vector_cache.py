"""Vectors of examples that cost something, kept in a folder under the hash of all that they depend on."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path

import numpy as np

from fulmen_core.files import atomic_write_bytes
from fulmen_raise_semantic.embedders import Embedder, Vectors_ND
from fulmen_raise_semantic.examples import Examples

log = logging.getLogger(__name__)


def example_vectors(examples: Examples, embedder: Embedder, folder: str) -> Vectors_ND:
    """Return the vectors of ``examples.texts()``, from the folder if they are there; else embedded, and put there.

    Args:
        folder: empty to keep nothing; nothing is kept of a local embedder.

    Raises:
        RemoteFailure, ValueError: see `Embedder.embed`.
        UserError: the folder cannot be written.
    """
    texts = examples.texts()
    if not folder or embedder.local:
        return embedder.embed(texts)
    key = hashlib.sha256(f"1 {embedder.identity}\n{examples.digest()}".encode()).hexdigest()
    file = Path(folder) / f"{key}.npy"
    if file.is_file():
        try:
            vectors_ND = np.load(file, allow_pickle=False)
            if vectors_ND.dtype == np.float32 and vectors_ND.ndim == 2 and len(vectors_ND) == len(texts):
                return np.asarray(vectors_ND, np.float32)
        except (OSError, ValueError, EOFError):
            pass
        log.warning("the vectors in %s are damaged and are made again", file)
    vectors_ND = embedder.embed(texts)
    data = io.BytesIO()
    np.save(data, vectors_ND)
    atomic_write_bytes(file, data.getvalue())
    return vectors_ND
