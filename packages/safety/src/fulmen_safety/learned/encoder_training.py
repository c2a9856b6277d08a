"""Trains the small Transformer with torch, on labels and on the scores of a teacher where rows have one.

Legend: B batch, T words, D width, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_safety.learned.encoder import HEADS, LONGEST, WIDTH, Encoder, Layer, rows_of
from fulmen_safety.learned.features import features
from fulmen_safety.learned.rows import Row

INNER, BLOCKS = 128, 2
_BATCH = 64


def require_torch() -> Any:
    """Return torch. Raises `UserError` if it is not installed."""
    try:
        import torch
    except ImportError as error:
        remedy = "pip install 'fulmen-safety[train]', or train with --kind linear"
        raise UserError("training a Transformer needs torch", where="fulmen raise train", remedy=remedy) from error
    return torch


def word_hashes(text: str) -> NDArray[np.uint32]:
    """Return the hashes of the words of `text`, in order, uint32 [T]."""
    seen = features(text)
    return seen.words[0][0] if seen.words else np.zeros(0, np.uint32)


def fit_encoder(rows: Sequence[Row], vectors: Mapping[int, NDArray[np.float32]], *, epochs: int, seed: int) -> Encoder:
    """Return an encoder trained on rows in which safe and unsafe weigh the same.

    Args:
        vectors: hash of a word -> vector [D] that it starts from; those without start at random.
    """
    torch = require_torch()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    said = [word_hashes(row.text)[:LONGEST] for row in rows]
    counted = Counter(hash_ for hashes in said for hash_ in set(hashes.tolist()))
    vocabulary = np.array(sorted({word for word, count in counted.items() if count > 1} | set(vectors)), np.uint32)
    ids = [rows_of(vocabulary, hashes) for hashes in said]
    model = _module(torch, vocabulary, vectors, seed)
    target = np.array([row.score if row.score is not None else 0.97 if row.unsafe else 0.03 for row in rows])
    weight = np.array([row.weight for row in rows])
    unsafe = target > 0.5
    weight = weight / np.where(unsafe, weight[unsafe].sum(), weight[~unsafe].sum()) * len(rows) / 2
    kept = [place for place, one in enumerate(ids) if len(one)]
    random = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    steps = epochs * -(-len(kept) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(epochs):
        for batch in _batches(ids, kept, random):
            tokens_BT, mask_BT = _padded(torch, [ids[one] for one in batch], len(vocabulary), random)
            logits_B = model(tokens_BT, mask_BT)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits_B, torch.tensor(target[batch], dtype=torch.float32),
                torch.tensor(weight[batch], dtype=torch.float32),
            )  # fmt: skip
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return exported(model, vocabulary)


def _batches(
    ids: Sequence[NDArray[np.intp]], kept: Sequence[int], random: np.random.Generator
) -> list[NDArray[np.intp]]:
    """Return shuffled batches of texts of about the same length."""
    lengths = np.array([len(ids[one]) for one in kept]) + random.uniform(0, 4, len(kept))
    order = np.array(kept)[np.argsort(lengths)]
    cut = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
    return [cut[one] for one in random.permutation(len(cut))]


def _padded(torch: Any, ids: Sequence[NDArray[np.intp]], other: int, random: np.random.Generator) -> tuple[Any, Any]:
    """Return tokens and mask [B, T]; one word in twenty is made unknown."""
    longest = max(len(one) for one in ids)
    tokens = np.full((len(ids), longest), other)
    mask = np.zeros((len(ids), longest), np.float32)
    for place, one in enumerate(ids):
        tokens[place, : len(one)] = np.where(random.random(len(one)) < 0.05, other, one)
        mask[place, : len(one)] = 1
    return torch.from_numpy(tokens), torch.from_numpy(mask)


def _module(torch: Any, vocabulary: NDArray[np.uint32], vectors: Mapping[int, NDArray[np.float32]], seed: int) -> Any:
    nn = torch.nn
    table = np.random.default_rng(seed).normal(0, 0.05, (len(vocabulary) + 1, WIDTH)).astype(np.float32)
    for place, word in enumerate(vocabulary.tolist()):
        if word in vectors:
            table[place] = vectors[word]

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
            self.drop = nn.Dropout(0.1)

        def forward(self, x_BTD: Any, mask_BT: Any) -> Any:
            batch, length, _ = x_BTD.shape
            heads = self.qkv(self.norm_1(x_BTD)).view(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            scores = heads[0] @ heads[1].transpose(-1, -2) * (WIDTH // HEADS) ** -0.5
            scores = scores.masked_fill(mask_BT[:, None, None] == 0, float("-inf")).softmax(-1)
            mixed = (scores @ heads[2]).transpose(1, 2).reshape(batch, length, WIDTH)
            x_BTD = x_BTD + self.drop(self.out(mixed))
            return x_BTD + self.drop(self.down(self.up(self.norm_2(x_BTD)).relu()))

    class Model(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding.from_pretrained(torch.from_numpy(table), freeze=False)
            self.places = nn.Parameter(torch.randn(LONGEST, WIDTH) * 0.02)
            self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
            self.norm = nn.LayerNorm(WIDTH)
            self.drop = nn.Dropout(0.2)
            self.head = nn.Linear(WIDTH, 1)

        def forward(self, tokens_BT: Any, mask_BT: Any) -> Any:
            x_BTD = self.drop(self.words(tokens_BT) + self.places[: tokens_BT.shape[1]])
            for block in self.blocks:
                x_BTD = block(x_BTD, mask_BT)
            mean_BD = (self.norm(x_BTD) * mask_BT[..., None]).sum(1) / mask_BT.sum(1, keepdim=True)
            return self.head(mean_BD)[:, 0]

    return Model()


def exported(model: Any, vocabulary: NDArray[np.uint32]) -> Encoder:
    """Return a trained module as an `Encoder`: words in 8 bits, the rest rounded to float16 as they are stored."""

    def half(tensor: Any) -> NDArray[np.float32]:
        return np.ascontiguousarray(tensor.detach().numpy().astype(np.float16).astype(np.float32))

    table = model.words.weight.detach().numpy()
    scale = np.maximum(np.abs(table).max(1, keepdims=True) / 127, 1e-8).astype(np.float32)
    return Encoder(
        vocabulary_V=vocabulary,
        words=np.rint(table / scale).astype(np.int8),
        word_scale=scale,
        places=half(model.places),
        layers=tuple(
            Layer(
                norm_1=half(block.norm_1.weight), norm_1_bias=half(block.norm_1.bias),
                qkv=half(block.qkv.weight.T), qkv_bias=half(block.qkv.bias),
                out=half(block.out.weight.T), out_bias=half(block.out.bias),
                norm_2=half(block.norm_2.weight), norm_2_bias=half(block.norm_2.bias),
                up=half(block.up.weight.T), up_bias=half(block.up.bias),
                down=half(block.down.weight.T), down_bias=half(block.down.bias),
            )
            for block in model.blocks
        ),
        norm=half(model.norm.weight),
        norm_bias=half(model.norm.bias),
        head=half(model.head.weight[0]),
        bias=float(model.head.bias.detach().numpy()[0]),
    )  # fmt: skip
