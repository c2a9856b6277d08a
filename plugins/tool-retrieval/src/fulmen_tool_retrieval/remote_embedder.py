"""An embedder behind an OpenAI-compatible ``POST /v1/embeddings``: another server, or Fulmen's own.

Source: https://platform.openai.com/docs/api-reference/embeddings/create.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_tool_retrieval.embedder import Vectors_ND, normalised

_BATCH = 32
_SECONDS = 120.0


def read_key(file: Path | None) -> str:
    """The key in the first line of `file`; empty for None. In a file it stands in no list of processes.

    Raises:
        UserError: the file cannot be read.
    """
    if file is None:
        return ""
    try:
        return file.read_text("utf-8").strip().partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the key file {file} cannot be read", remedy=str(error)) from error


class EmbeddingsUnavailable(UserError):
    """The server of embeddings cannot be reached, refuses, or answers with something else."""


class RemoteEmbedder:
    """A server's embeddings.

    Args:
        base_url: up to and with ``/v1``, e.g. ``http://127.0.0.1:8000/v1``.
        model: what the server calls it.
        key: sent as a bearer token; empty sends none.
    """

    floor = -1.0  # what a model's inner products mean is its own affair

    def __init__(self, base_url: str, model: str, key: str = "") -> None:
        if not base_url.startswith(("http://", "https://")):
            raise UserError(f"{base_url!r} is no URL of a server", remedy="write e.g. http://127.0.0.1:8000/v1")
        if not model:
            raise UserError("the server of embeddings is given, but no model", remedy="give its name there")
        self._url, self._model = base_url.rstrip("/"), model
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=_SECONDS, follow_redirects=False)

    def identity(self) -> Mapping[str, Any]:
        """See `Embedder.identity`."""
        return {"kind": "remote", "model": self._model}

    def embed_documents(self, texts: Sequence[str]) -> Vectors_ND:
        """See `Embedder.embed_documents`; in calls of 32 texts.

        Raises:
            EmbeddingsUnavailable: a call failed.
        """
        batches = [self._embed(texts[at : at + _BATCH], _SECONDS) for at in range(0, len(texts), _BATCH)]
        widths = {batch.shape[1] for batch in batches}
        if len(widths) > 1:
            raise EmbeddingsUnavailable(f"{self._url} gave vectors of {len(widths)} lengths", remedy="mend the server")
        return normalised(np.concatenate(batches)) if batches else np.zeros((0, 0), np.float32)

    def embed_query(self, text: str, timeout: float | None = None) -> NDArray[np.float32]:
        """See `Embedder.embed_query`.

        Raises:
            EmbeddingsUnavailable: the call failed.
        """
        seconds = _SECONDS if timeout is None else max(timeout, 0.001)
        return np.asarray(normalised(self._embed([text], seconds))[0])

    def _embed(self, texts: Sequence[str], seconds: float) -> Vectors_ND:
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        try:
            response = self._client.post(f"{self._url}/embeddings", json=body, timeout=seconds)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise EmbeddingsUnavailable(f"the embeddings at {self._url} cannot be had", remedy=reason) from error
        if response.status_code != 200:
            said = " ".join(response.text.split())[:200]
            raise EmbeddingsUnavailable(f"{self._url} answered {response.status_code}", remedy=said)
        try:
            rows = sorted(response.json()["data"], key=lambda row: int(row["index"]))
            vectors_ND = np.array([row["embedding"] for row in rows], np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise EmbeddingsUnavailable(
                f"{self._url} answered with something else than embeddings", remedy=repr(error)
            ) from error
        if vectors_ND.ndim != 2 or len(vectors_ND) != len(texts) or not np.isfinite(vectors_ND).all():
            raise EmbeddingsUnavailable(
                f"{self._url} gave vectors of shape {vectors_ND.shape} for {len(texts)} texts", remedy="mend the server"
            )
        return vectors_ND
