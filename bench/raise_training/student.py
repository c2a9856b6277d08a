r"""Fine-tunes the first layers of one teacher on the scores of all: a part of their time, most of what they tell apart.

    python bench/raise_training/student.py --encoder DIR --teacher teacher.safetensors --rows harm.jsonl.gz \
        --taught harm_taught.jsonl.gz --out bert.safetensors

DIR and the rows are those of `teacher.py`, which wrote the other two files; the same groups are left out. How it is
made small before it learns, `shrinking.py` says.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from guessing import with_guess
from shrinking import keep_layers, keep_pieces, round_for_good, round_while_learning
from teacher import Teacher, Teachers, alike, kept_rows, read
from torch import nn

from fulmen_safety.language import language_of
from fulmen_safety.learned.bert_weights import of_transformers, write_bert

_BATCH, _RATE = 32, 1e-4
_LISTENED = 4000  # texts by which inner units and the guess are chosen


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True, help="weights of all")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--taught", type=Path, required=True, help="rows that the teachers scored")
    parser.add_argument("--held-out", type=float, default=0.2, help="as given to the teacher")
    parser.add_argument("--inner", type=int, nargs="+", default=[1152, 640, 640], help="inner units of each layer kept")
    parser.add_argument("--pieces", type=int, default=13_000, help="of the vocabulary")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0, help="as given to the teacher")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    teachers = Teachers.load(given.encoder, given.teacher)
    model = teachers[0]
    rows = kept_rows(read(given.rows), given.held_out, given.seed)
    told = teachers.scores([row["text"] for row in rows])
    for row, score in zip(rows, told, strict=True):  # half of what it is labelled, half of what the teachers think
        row["score"] = (float(score) + (0.98 if row["label"] == "unsafe" else 0.02)) / 2
    rows += [row for row in read(given.taught) if language_of(row["text"]) == "en"]
    texts = [row["text"] for row in rows]
    some = np.random.default_rng(given.seed).choice(len(texts), min(_LISTENED, len(texts)), replace=False)
    keep_layers(model, given.inner, [texts[one] for one in some])
    pieces = keep_pieces(model, given.pieces, texts)
    round_while_learning(model)
    model.encoder.embeddings.requires_grad_(True)
    fit(model, rows, given.epochs, given.seed)
    round_for_good(model)
    state = {name: value.detach().float().numpy() for name, value in model.encoder.state_dict().items()}
    bert = of_transformers(
        state, model.head.weight[0].detach().numpy(), model.head.bias.item(),
        heads=model.encoder.config.num_attention_heads, pieces=pieces, rows_V=range(len(pieces)),
    )  # fmt: skip
    write_bert(given.out, with_guess(bert, [texts[one] for one in some]))
    print(len(pieces), "pieces,", given.out.stat().st_size, "bytes")


def fit(model: Teacher, rows: list[dict[str, Any]], epochs: float, seed: int) -> None:
    """Train on the rows' scores, safe and unsafe weighing the same."""
    target = np.array([row["score"] for row in rows])
    weight = np.array([row["weight"] for row in rows])
    unsafe = target > 0.5
    weight = weight / np.where(unsafe, weight[unsafe].sum(), weight[~unsafe].sum()) * len(rows) / 2
    random = np.random.default_rng(seed)
    every = np.arange(len(rows))
    batches = [one for _ in range(math.ceil(epochs)) for one in alike(rows, every, _BATCH, random)]
    batches = batches[: math.ceil(epochs * len(rows) / _BATCH)]
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=len(batches), pct_start=0.1)
    model.train()
    told = 0.0
    for step, batch in enumerate(batches, 1):
        loss = nn.functional.binary_cross_entropy_with_logits(
            model([rows[one]["text"] for one in batch]),
            torch.tensor(target[batch], dtype=torch.float32),
            torch.tensor(weight[batch], dtype=torch.float32),
        )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        told += loss.item()
        if step % 300 == 0:
            print(step, "of", len(batches), "loss", round(told / 300, 4), flush=True)
            told = 0.0


if __name__ == "__main__":
    main()
