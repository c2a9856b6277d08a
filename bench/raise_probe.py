"""A probe on a model's hidden states beside a linear model over n-grams, on the same split of the same texts.

    python bench/raise_probe.py --model runs/demo/sft --data harmful.jsonl.gz safe.jsonl.gz --layers 0 1 2

Texts that are alike are on one side of the split (see `fulmen_raise_probe.rows.groups`). Both are fitted to the same
texts, their penalty is chosen on the same texts kept apart, and the figures are of the rest. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fulmen_raise_probe.rows import Row, read_labelled
from fulmen_raise_probe.states import ModelStates
from fulmen_raise_probe.training import CALIBRATE, FIT, figures_of, split, train

LONGEST = 1000  # characters read of a text


def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--category", default="nonviolent_crime", help="of all unsafe texts")
    parser.add_argument("--layers", type=int, nargs="+", default=[0])
    parser.add_argument("--pools", nargs="+", default=["mean", "last"])
    parser.add_argument("--most", type=int, default=0, help="texts of each file; default: all")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    rows = [
        Row(row.text[:LONGEST], row.category and args.category)
        for file in args.data
        for row in read_labelled([file], {}, args.category)[: args.most or None]
    ]
    rows = list({row.text: row for row in rows}.values())
    found = [{"what": "n-grams", **ngrams(rows)}]
    for layer in args.layers:
        for pool in args.pools:
            states = ModelStates(args.model, layer, pool)
            began = time.perf_counter()
            vectors_ND = states.vectors([row.text for row in rows])
            milliseconds = (time.perf_counter() - began) * 1000 / len(rows)
            _, card = train(rows, vectors_ND, layer=layer, pool=pool, model=states.fingerprint)
            figures = {"what": f"layer {layer} {pool}", "ms_per_text": round(milliseconds, 2), **card["held_out_any"]}
            found.append(figures)
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for one in found:
        print(
            f"{one['what']:<16} AUC {one['auc']:.3f}  recall at 1 % {one['recall_at_fpr_1pct']:.1%}, at 5 % "
            f"{one['recall_at_fpr_5pct']:.1%}  ({one['positives']} of {one['texts']} texts)  {one['ms_per_text']} ms"
        )


def ngrams(rows: Sequence[Row]) -> dict[str, Any]:
    """TF-IDF of characters' and words' n-grams and logistic regression, C chosen on the texts kept apart."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    place_N = split(rows)
    texts = np.array([row.text for row in rows], object)
    is_N = np.array([bool(row.category) for row in rows])
    fit, apart, test = place_N < FIT, (place_N >= FIT) & (place_N < CALIBRATE), place_N >= CALIBRATE
    features = make_union(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True),
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
    ).fit(texts[fit])
    best: tuple[float, Any] | None = None
    for strength in (0.3, 3.0, 30.0, 300.0):
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
        model.fit(features.transform(texts[fit]), is_N[fit])
        auc = float(figures_of(model.decision_function(features.transform(texts[apart])), is_N[apart])["auc"])
        if best is None or auc > best[0]:
            best = (auc, model)
    assert best is not None
    began = time.perf_counter()
    scores_N = best[1].decision_function(features.transform(texts[test]))
    milliseconds = (time.perf_counter() - began) * 1000 / max(int(test.sum()), 1)
    return {"ms_per_text": round(milliseconds, 2), **figures_of(scores_N, is_N[test])}


if __name__ == "__main__":
    main()
