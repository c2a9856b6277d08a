"""Held-out bits per byte: how well a model compresses documents it has not seen, whatever its tokenizer.

Legend: B windows of a batch, T tokens of a window, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from fulmen_core.errors import UserError
from fulmen_core.model.transformer import Transformer
from fulmen_core.tokenizer import Tokenizer
from fulmen_trainer.linear_loss import token_losses


class BitsPerByte(TypedDict):
    """What `evaluate_bits_per_byte` returns; `nats` is the sum over all tokens, `loss` the mean over them."""

    bits_per_byte: float
    loss: float
    nats: float
    tokens: int
    bytes: int
    documents: int


@dataclass(frozen=True, slots=True)
class _Window:
    ids: Sequence[int]  # inputs, then one more token: the last target
    scored: int  # the last this many targets count; the earlier ones counted in the window before


def _windows(ids: Sequence[int], length: int, stride: int) -> Iterator[_Window]:
    """Cover every target of `ids` once: the first window scores all its own, later ones the last `stride`."""
    targets = len(ids) - 1
    end = min(length, targets)
    yield _Window(ids[: end + 1], end)
    while end < targets:
        new_end = min(end + stride, targets)
        yield _Window(ids[max(0, new_end - length) : new_end + 1], new_end - end)
        end = new_end


@torch.no_grad()
def evaluate_bits_per_byte(
    model: Transformer,
    tokenizer: Tokenizer,
    documents: Sequence[str],
    *,
    sequence_length: int,
    stride: int | None = None,
    batch_size: int = 16,
    autocast: AbstractContextManager[Any] | None = None,
) -> BitsPerByte:
    """Total nats of all documents, divided by ln 2 and by their UTF-8 bytes.

    Each document is read alone, after one end-of-text token, in windows of `sequence_length` tokens whose ends are
    `stride` apart (half the length if None), so that each token after the first window has at least ``sequence_length
    - stride`` tokens of context. The windows are a function of the documents: the figure is deterministic.

    Raises:
        UserError: there is no byte to score.
    """
    stride = stride or max(1, sequence_length // 2)
    if not any(documents):
        raise UserError("there is no held-out text to evaluate on", remedy="hold out at least one document")
    windows = [
        window
        for document in documents
        if document
        for window in _windows([tokenizer.eos_id, *tokenizer.encode(document)], sequence_length, stride)
    ]
    windows.sort(key=lambda window: len(window.ids))  # stable; equal lengths share a batch, so little is padded
    nats, tokens = 0.0, 0
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size]
        losses = _scored_losses(model, batch, tokenizer.pad_id, autocast if autocast is not None else nullcontext())
        nats += float(losses.sum(dtype=torch.float64))
        tokens += len(losses)
    size = sum(len(document.encode()) for document in documents)
    return BitsPerByte(
        bits_per_byte=nats / math.log(2) / size,
        loss=nats / tokens,
        nats=nats,
        tokens=tokens,
        bytes=size,
        documents=len(documents),
    )


def _scored_losses(
    model: Transformer, windows: Sequence[_Window], pad_id: int, autocast: AbstractContextManager[Any]
) -> Tensor:
    """The losses of all scored targets, float32 [number of them]. Padding is at the end, out of sight."""
    longest = max(len(window.ids) for window in windows)
    ids_BT1 = torch.full((len(windows), longest), pad_id)
    scored_BT = torch.zeros((len(windows), longest - 1), dtype=torch.bool)
    for row, window in enumerate(windows):
        end = len(window.ids)
        ids_BT1[row, :end] = torch.tensor(window.ids)
        scored_BT[row, end - 1 - window.scored : end - 1] = True
    device = model.embed.weight.device
    ids_BT1, scored_BT = ids_BT1.to(device), scored_BT.to(device)
    with autocast:
        hidden_BTD = model(ids_BT1[:, :-1]).hidden_BTD
        return token_losses(hidden_BTD[scored_BT], model.head_weight_VD, ids_BT1[:, 1:][scored_BT])
