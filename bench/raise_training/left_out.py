"""What a model makes of collections that neither it nor its teacher has seen, nor anything like them.

    python bench/raise_training/left_out.py split --rows rows/harm.jsonl.gz --out rows_left_out
    python bench/raise_training/left_out.py measure --left rows_left_out/left.jsonl.gz --model DIR [--model DIR]

`split` writes the rows without those of `--source` (a prefix of the row's own) and without what shares more than 0.4
of the shorter text's shingles with one of them (`harm.jsonl.gz`), and those rows (`left.jsonl.gz`). A teacher and a
student are trained on the first as README.md says. `measure` prints how many of the unsafe rows left out a model finds
at the threshold that takes 5 % of XSTest's safe rows for harm, if there are any, and of all safe rows left out, with
95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_safety.evaluation import metrics
from fulmen_safety.learned.artefact import read as read_model
from fulmen_safety.learned.grouping import shingles
from fulmen_safety.learned.linear_model import LinearModel
from fulmen_safety.learned.window_detector import WindowDetector

SOURCES = ("xstest_v2", "harmbench_val", "jbb_behaviors", "strongreject", "simple_safety_tests")
_ALIKE = 0.4


def main() -> None:
    """Split, or measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("split")
    verb.set_defaults(run=split)
    verb.add_argument("--rows", type=Path, required=True)
    verb.add_argument("--source", nargs="+", default=SOURCES)
    verb.add_argument("--out", type=Path, required=True)
    verb = verbs.add_parser("measure")
    verb.set_defaults(run=measure)
    verb.add_argument("--left", type=Path, required=True)
    verb.add_argument("--model", type=Path, action="append", required=True)
    given = parser.parse_args()
    given.run(given)


def split(given: argparse.Namespace) -> None:
    """Write what may be trained on, and what is left out."""
    rows = _read(given.rows)
    is_left = [row["source"].startswith(tuple(given.source)) for row in rows]
    left = [row for row, one in zip(rows, is_left, strict=True) if one]
    like = _likeness([row["text"] for row in left])
    others = [row for row, one in zip(rows, is_left, strict=True) if not one]
    kept = [row for row in others if not like(row["text"])]
    given.out.mkdir(parents=True, exist_ok=True)
    for name, some in (("harm", kept), ("left", left)):
        body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some).encode()
        (given.out / f"{name}.jsonl.gz").write_bytes(gzip.compress(body, mtime=0))
    print(f"{len(left)} rows left out, {len(others) - len(kept)} like them dropped, {len(kept)} kept")


def measure(given: argparse.Namespace) -> None:
    """Print each model's figures on what was left out."""
    rows = _read(given.left)
    unsafe = np.array([row["label"] == "unsafe" for row in rows])
    source = np.array([row["source"].split(":")[0] for row in rows])
    for folder in given.model:
        model = read_model(folder)
        score, ungated = (_scores(one, rows) for one in (model, replace(model, gate=None, short_gate=None)))
        print(folder)
        look_alikes = ~unsafe & (source == "xstest_v2")
        sides = {"XSTest's safe": look_alikes, "all safe": ~unsafe} if look_alikes.any() else {"all safe": ~unsafe}
        for name, safe in sides.items():
            told = [_recall(score[unsafe], score[safe], rate) for rate in (0.05, 0.01)]
            print(f"  {name} rows ({safe.sum()}): recall of {unsafe.sum()} at 5 % {told[0]}, at 1 % {told[1]}")
        at = metrics.threshold_at_fpr(score[next(iter(sides.values()))], 0.05)
        for one in sorted(set(source[unsafe])):
            ours = score[unsafe & (source == one)]
            print(f"  {one}: {len(ours)} unsafe, found at the first 5 % {(ours > at).mean():.1%}")
        found = unsafe & (ungated > at)
        print(f"  the gates lose {(score[found] <= at).sum()} of the {found.sum()} found without it")


def _scores(model: LinearModel, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    detector = WindowDetector("harm", model, 0.0)
    return np.array([max(detector.scores(row["text"]).values()) for row in rows])


def _recall(unsafe: NDArray[np.float64], safe: NDArray[np.float64], rate: float) -> str:
    interval = metrics.bootstrap(partial(_at, rate), unsafe, safe, seed=0, resamples=500)
    return f"{metrics.recall_at_fpr(unsafe, safe, rate):.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def _at(rate: float, unsafe: Any, safe: Any) -> float:
    return metrics.recall_at_fpr(unsafe, safe, rate)


def _likeness(texts: list[str]) -> Callable[[str], bool]:
    """Return what tells whether a text is a near-duplicate of one of these."""
    known = [shingles(text) for text in texts]
    holders: defaultdict[int, list[int]] = defaultdict(list)
    for place, some in enumerate(known):
        for shingle in some:
            holders[shingle].append(place)

    def like(text: str) -> bool:
        ours = shingles(text)
        near = {place for shingle in ours for place in holders.get(shingle, ())}
        return any(len(ours & known[place]) > _ALIKE * min(len(ours), len(known[place])) for place in near)

    return like


def _read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    main()
