"""Texts like the labelled ones but new: asked in another form, words replaced by their neighbours or at random, halves
of two texts joined, ends cut off. What they are worth the teacher says. And vectors of words, from the encoder before
it is fine-tuned.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forms import reformed
from safetensors.numpy import save_file
from transformers import AutoModel, AutoTokenizer

from fulmen_safety.learned.encoder import WIDTH
from fulmen_safety.learned.encoder_training import word_hashes

SCORED = 0.3  # what a row that a teacher scored weighs: there are many

_WORD = re.compile(r"[A-Za-z][a-z']+")
_NEIGHBOURS: dict[str, list[str]] = {}


def write_vectors(path: Path, encoder: Path, texts: list[str]) -> None:
    """Write hashes and vectors [V, WIDTH] of the texts' words and of the whole words in the encoder's vocabulary: their
    mean states, reduced to the strongest directions. Keeps each word's neighbours for `pool`.
    """
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    counted = Counter(word.lower() for text in texts for word in _WORD.findall(text))
    whole = {word for word in tokenizer.get_vocab() if re.fullmatch("[a-z]{2,}", word)}
    words = sorted(whole | {word for word, count in counted.items() if count > 1})
    states = _states(encoder, tokenizer, words)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    centred = states - states.mean(0)
    _, _, directions = np.linalg.svd(centred[:: max(1, len(words) // 8000)], full_matrices=False)
    vectors = (centred @ directions[:WIDTH].T).astype(np.float32)
    vectors *= 0.1 / vectors.std()
    hashes = np.array([word_hashes(word)[0] for word in words], np.uint32)
    _, first = np.unique(hashes, return_index=True)
    save_file({"hashes": hashes[first], "vectors": vectors[first]}, str(path))
    frequent = [place for place, word in enumerate(words) if word in counted]
    for at in range(0, len(frequent), 512):
        some = frequent[at : at + 512]
        nearest = np.argpartition(-(centred[some] @ centred.T), 9, axis=1)[:, :9]
        for place, others in zip(some, nearest.tolist(), strict=True):
            _NEIGHBOURS[words[place]] = [words[other] for other in others if other != place]


@torch.no_grad()
def _states(encoder: Path, tokenizer: Any, words: list[str]) -> np.ndarray:
    model = AutoModel.from_pretrained(encoder).eval()
    found = []
    for at in range(0, len(words), 256):
        batch = tokenizer(words[at : at + 256], padding=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None]
        found.append(((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)).numpy())
    return np.concatenate(found)


def pool(rows: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Return the rows' own texts and `count` variants of each that is not long, all without a label of their own."""
    random = np.random.default_rng(seed)
    short = [row for row in rows if len(row["text"]) < 300]
    texts: dict[str, dict[str, Any]] = {row["text"]: row for row in rows}
    for row in short:
        hard = row["weight"] > 1 or row["label"] == "unsafe"
        for _ in range(count if hard else count // 2):
            other = short[int(random.integers(len(short)))]
            texts.setdefault(_variant(row["text"], other["text"], random), row)
    return [
        {
            "text": text, "label": "safe", "category": row["category"], "weight": SCORED,
            "source": f"variants of {row['source']}", "licence": row["licence"],
        }
        for text, row in texts.items()
    ]  # fmt: skip


def _variant(text: str, other: str, random: np.random.Generator) -> str:
    if random.random() < 0.3 and (other_form := reformed(text, random)) != text:
        text = other_form
    chance = random.random()
    words = text.split(" ")
    if chance < 0.25 and len(words) > 3:
        theirs = other.split(" ")
        return " ".join(words[: int(random.integers(2, len(words)))] + theirs[int(random.integers(0, len(theirs))) :])
    if chance < 0.35 and len(words) > 5:
        return " ".join(words[int(random.integers(0, 3)) : len(words) - int(random.integers(0, 3))])
    return _WORD.sub(lambda match: _replaced(match[0], random), text)


def _replaced(word: str, random: np.random.Generator) -> str:
    chance = random.random()
    if chance < 0.22 and (near := _NEIGHBOURS.get(word.lower())):
        return near[int(random.integers(len(near)))]
    if chance < 0.27:
        return _known()[int(random.integers(len(_known())))]
    return word


@cache
def _known() -> list[str]:
    return sorted(_NEIGHBOURS)
