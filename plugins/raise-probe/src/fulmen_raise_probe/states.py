"""Where hidden states come from: a model loaded here, or a server's embeddings, which are its model's last ones.

A text's state is the output of one layer, over its tokens' mean or of its last token, at length 1.

Legend: N texts, B batch, T time, D model width.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fulmen_core.model_directory import ModelDirectory
from fulmen_safety import UserError
from fulmen_safety.remote import Patience, RemoteEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

Pool = Literal["mean", "last"]
States_ND = NDArray[np.float32]

#: Tokens computed at once, padding included.
_BATCH_TOKENS = 4096


class States(Protocol):
    """Gives a state for each text."""

    def vectors(self, texts: Sequence[str]) -> States_ND:
        """Return float32 [N, D], each of length 1.

        Raises:
            TooLong: a text has more tokens than the model reads at once.
            RemoteFailure: the server could not be asked.
        """
        ...


class TooLong(Exception):
    """A text has more tokens than the model reads at once."""


class ModelStates:
    """A checkpoint's states, computed here. Safe to use from several threads; one computes at a time.

    Args:
        folder: the model directory.
        layer: 1 to the number of layers, or 0 for the final states, behind the last norm.
        pool: over the tokens' mean, or the last token's.

    Raises:
        UserError: there is no checkpoint, or no such layer.
    """

    def __init__(self, folder: Path, layer: int, pool: Pool) -> None:
        directory = ModelDirectory.inspect(folder)
        if directory.format != "checkpoint":
            raise UserError(
                f"{folder} is an artefact of the format {directory.format!r}",
                remedy="give the checkpoint it was made of",
            )
        from fulmen_core.model.checkpoint import check_tokenizer_fits, load_model
        from fulmen_core.tokenizer import load_tokenizer

        self.fingerprint = directory.fingerprint()
        self._model = load_model(folder)
        self._tokenizer = load_tokenizer(folder)
        check_tokenizer_fits(self._model.config, self._tokenizer.vocab_size)
        self._longest = directory.max_context
        self._layer, self._pool = layer, pool
        self._lock = threading.Lock()
        layers = self._model.config.num_hidden_layers
        if not 0 <= layer <= layers:
            raise UserError(
                f"there is no layer {layer}", where=str(folder), remedy=f"give 1 to {layers}, or 0 for the end"
            )

    def vectors(self, texts: Sequence[str]) -> States_ND:
        """See `States.vectors`."""
        encoded = [self._tokenizer.encode_prompt(_encodable(text)) or [0] for text in texts]
        if any(len(ids) > self._longest for ids in encoded):
            raise TooLong
        states = np.zeros((len(encoded), self._model.config.hidden_size), np.float32)
        # of like length together, so that little is computed for padding
        order = sorted(range(len(encoded)), key=lambda at: len(encoded[at]))
        first = 0
        while first < len(order):
            last = first + 1
            while last < len(order) and (last + 1 - first) * len(encoded[order[last]]) <= _BATCH_TOKENS:
                last += 1
            batch = order[first:last]
            states[batch] = self._pooled([encoded[at] for at in batch])
            first = last
        return unit(states)

    def _pooled(self, batch: Sequence[Sequence[int]]) -> States_ND:
        import torch

        lengths_B = torch.tensor([len(ids) for ids in batch])
        tokens_BT = torch.zeros(len(batch), int(lengths_B.max()), dtype=torch.int64)
        for row, ids in enumerate(batch):
            tokens_BT[row, : len(ids)] = torch.tensor(ids)
        with torch.inference_mode(), self._lock:
            x_BTD = self._states(tokens_BT)  # attention is causal: what is padded behind a text changes nothing in it
        if self._pool == "last":
            pooled_BD = x_BTD[torch.arange(len(batch)), lengths_B - 1]
        else:
            valid_BT1 = (torch.arange(tokens_BT.shape[1])[None] < lengths_B[:, None])[..., None]
            pooled_BD = (x_BTD * valid_BT1).sum(1) / lengths_B[:, None]
        return np.asarray(pooled_BD.float().numpy())

    def _states(self, tokens_BT: Tensor) -> Tensor:
        if self._layer == 0:
            final_BTD: Tensor = self._model(tokens_BT).hidden_BTD
            return final_BTD

        def stop(_block: Any, _arguments: Any, output: Any) -> None:
            raise _Reached(output.x_BTD)

        handle = self._model.block(self._layer - 1).register_forward_hook(stop)
        try:
            self._model(tokens_BT)
        except _Reached as reached:
            return reached.x_BTD
        finally:
            handle.remove()
        raise AssertionError  # every forward pass goes through every block


class _Reached(Exception):
    """The layer is computed; those behind it need not be."""

    def __init__(self, x_BTD: Tensor) -> None:
        super().__init__()
        self.x_BTD = x_BTD


class ServerStates:
    """A server's embeddings: of Fulmen's own, the final state of the last token."""

    def __init__(self, embeddings: RemoteEmbeddings, patience: Patience) -> None:
        self._embeddings, self._patience = embeddings, patience

    def vectors(self, texts: Sequence[str]) -> States_ND:
        """See `States.vectors`."""
        return unit(np.asarray(self._embeddings(texts, self._patience), np.float32))


def unit(vectors_ND: States_ND) -> States_ND:
    """The vectors at length 1; zeros stay zeros."""
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.asarray(vectors_ND / np.where(lengths_N1 > 0, lengths_N1, 1.0), np.float32)


def _encodable(text: str) -> str:
    """The text with a mark in place of each half of a surrogate pair, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
