r"""Fine-tunes the first layers of the teacher on its scores: half of its time, most of what it can tell apart.

    python bench/raise_training/student.py --encoder DIR --teacher teacher.safetensors --rows harm.jsonl.gz \
        --taught harm_taught.jsonl.gz --out bert.safetensors

DIR and the rows are those of `teacher.py`, which wrote the other two files; the same groups are left out. Of the
vocabulary the pieces that most texts have are kept: others are read as shorter ones.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from teacher import LONGEST, Teacher, alike, kept_rows, read
from torch import nn

from fulmen_safety.language import language_of
from fulmen_safety.learned.bert_weights import of_transformers, write_bert
from fulmen_safety.learned.wordpiece import SPECIAL

_BATCH, _RATE = 32, 1e-4


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True, help="its weights")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--taught", type=Path, required=True, help="rows that the teacher scored")
    parser.add_argument("--held-out", type=float, default=0.2, help="as given to the teacher")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--pieces", type=int, default=14_000, help="of the vocabulary")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="as given to the teacher")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    model = Teacher(given.encoder)
    model.load_state_dict(load_file(given.teacher))
    rows = kept_rows(read(given.rows), given.held_out, given.seed)
    told = model.scores([row["text"] for row in rows])
    for row, score in zip(rows, told, strict=True):  # half of what it is labelled, half of what the teacher thinks
        row["score"] = (float(score) + (0.98 if row["label"] == "unsafe" else 0.02)) / 2
    rows += [row for row in read(given.taught) if language_of(row["text"]) == "en"]
    model.encoder.encoder.layer = model.encoder.encoder.layer[: given.layers]
    model.encoder.config.num_hidden_layers = given.layers
    for block in model.encoder.encoder.layer:
        block.intermediate.intermediate_act_fn = nn.GELU("tanh")  # as NumPy computes it
    fit(model, rows, given.epochs, given.seed)
    write(given.out, model, [row["text"] for row in rows], given.pieces)


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


def write(path: Path, model: Teacher, texts: list[str], pieces: int) -> None:
    """Write the weights, with `SPECIAL`, the letters and digits, and of other pieces those that most texts have."""
    counted: Counter[int] = Counter()
    for at in range(0, len(texts), 1000):
        found = model.tokenizer(texts[at : at + 1000], truncation=True, max_length=LONGEST)["input_ids"]
        counted.update(piece for ids in found for piece in set(ids))
    own = model.tokenizer.get_vocab()
    always = {row for piece, row in own.items() if piece in SPECIAL or re.fullmatch("(##)?[a-z0-9]", piece)}
    others = sorted(set(own.values()) - always, key=lambda row: (-counted[row], row))
    kept = sorted(always | set(others[: pieces - len(always)]))
    named = {row: piece for piece, row in own.items()}
    state = {name: value.detach().float().numpy() for name, value in model.encoder.state_dict().items()}
    bert = of_transformers(
        state, model.head.weight[0].detach().numpy(), model.head.bias.item(),
        heads=model.encoder.config.num_attention_heads, pieces=[named[row] for row in kept], rows_V=kept,
    )  # fmt: skip
    write_bert(path, bert)
    print(len(kept), "pieces,", path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
