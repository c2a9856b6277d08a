"""Labelled texts to train on: JSON Lines, one object a line, `.jsonl` or `.jsonl.gz`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from fulmen_core.errors import UserError
from fulmen_safety import jsonl
from fulmen_safety.language import language_of
from fulmen_safety.learned.encoder import WIDTH
from fulmen_safety.taxonomy import taxonomy

_LABELS = ("safe", "unsafe")


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled text.

    Args:
        categories: of the taxonomy, in the order of the row; none if safe, or if a teacher said so.
        source, licence: as the row says, for the data card.
        group: texts of one group are always on one side of a split; "" for none but their likeness.
        weight: how much the row counts, 1 unless it says otherwise.
        score: a teacher's probability of being unsafe. Such a row is learned from, and never counts in a figure.
    """

    text: str
    unsafe: bool
    categories: tuple[str, ...]
    language: str
    source: str
    licence: str
    group: str
    weight: float
    score: float | None = None


def read_rows(paths: Iterable[Path], names: Mapping[str, str | Sequence[str]], *, default: str = "") -> list[Row]:
    """Read every row of every file; of rows with the same text, the first counts.

    Args:
        names: category as the files have it -> the taxonomy's, or several.
        default: category of unsafe rows that have none.

    Raises:
        UserError: a file that cannot be read, a line that is no such row, a category that is neither the taxonomy's
            nor in `names`.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        for place, given in jsonl.read_rows(path):
            row = _row(given, place, names, default)
            rows.setdefault(row.text, row)
    return list(rows.values())


def read_vectors(path: Path) -> dict[int, NDArray[np.float32]]:
    """Read vectors of words: uint32 ``hashes`` [V] of `fulmen_safety.learned.features` and float32 ``vectors`` [V, D].

    Raises:
        UserError: a file that cannot be read or has other tensors.
    """
    remedy = "give a file of safetensors with `hashes` and `vectors`"
    try:
        tensors = load(path.read_bytes())
        hashes, vectors = tensors["hashes"], tensors["vectors"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"cannot read vectors of words: {error}", where=str(path), remedy=remedy) from error
    if hashes.dtype != np.uint32 or vectors.shape != (len(hashes), WIDTH):
        raise UserError(f"vectors of shape {vectors.shape} for {len(hashes)} words", where=str(path), remedy=remedy)
    return dict(zip(hashes.tolist(), vectors.astype(np.float32), strict=True))


def _row(given: Mapping[str, Any], where: str, names: Mapping[str, str | Sequence[str]], default: str) -> Row:
    remedy = 'a row is {"prompt" or "text": ..., "label": "safe" or "unsafe", "category": ..., "lang": ...}'
    text = given.get("text") or given.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise UserError("the row has no text", where=where, remedy=remedy)
    if given.get("label") not in _LABELS:
        raise UserError(f"the label is {given.get('label')!r}", where=where, remedy=remedy)
    weight = given.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < float("inf"):
        raise UserError(f"the weight is {weight!r}", where=where, remedy="give a number above 0")
    score = given.get("score")
    if score is not None and (not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1):
        raise UserError(f"the score is {score!r}", where=where, remedy="give a number from 0 to 1, or none")
    unsafe = given["label"] == "unsafe"
    return Row(
        text,
        unsafe,
        _categories(given.get("category"), where, names, default) if unsafe and score is None else (),
        str(given.get("lang") or language_of(text)),
        str(given.get("source") or "unnamed"),
        str(given.get("licence") or given.get("license") or "not stated"),
        str(given.get("group") or ""),
        float(weight),
        None if score is None else float(score),
    )


def _categories(given: object, where: str, names: Mapping[str, str | Sequence[str]], default: str) -> tuple[str, ...]:
    said = given if isinstance(given, list) else [given] if given else []
    found: list[str] = []
    for name in map(str, said or [default]):
        meant = names.get(name, default if default and name not in taxonomy().titles else name)
        for category in [meant] if isinstance(meant, str) else meant:
            taxonomy().check(category, f"{where}; map the file's own with --categories")
            found.append(category)
    return tuple(dict.fromkeys(found))
