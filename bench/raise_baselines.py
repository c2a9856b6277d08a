"""Packaged offline classifiers and the shipped detectors on the same labelled texts.

    pip install --no-deps alt-profanity-check==1.9.1 securevector-guardian-model==1.4.0
    python bench/raise_baselines.py --data FILE.jsonl.gz [--negatives FILE] [--limit 2000] [--detector toxicity]

Prints AUC, recall at 1 and 5 % false alarms and the best F1 of each, and milliseconds per text. The detectors' figures
are only worth something on texts that they were not trained on; what they were trained on is in their cards.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from fulmen_safety.evaluation import metrics

Score = Callable[[str], float]
_DETECTORS = {
    "harm": "fulmen_raise_harm.detector",
    "toxicity": "fulmen_raise_toxicity.detector",
    "attack": "fulmen_raise_attack.combined",
}


def main() -> None:
    """Measure what is installed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--negatives", type=Path)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--detector", choices=sorted(_DETECTORS), action="append", default=[])
    given = parser.parse_args()
    rows = _read(given.data)
    unsafe = [text for text, label in rows if label == "unsafe"][: given.limit]
    safe = [text for text, label in (_read(given.negatives) if given.negatives else rows) if label == "safe"]
    safe = safe[: given.limit]
    print(f"{len(unsafe)} unsafe, {len(safe)} safe")
    scorers = {"alt-profanity-check": _profanity, "securevector": _guardian}
    scorers |= {name: lambda name=name: _ours(name) for name in given.detector}
    for name, make in scorers.items():
        try:
            score = make()
        except ImportError as error:
            print(f"{name}: not installed ({error})")
            continue
        began = time.perf_counter()
        bad, good = [score(text) for text in unsafe], [score(text) for text in safe]
        each = (time.perf_counter() - began) * 1000 / (len(unsafe) + len(safe))
        print(
            f"{name}: AUC {metrics.auc(bad, good):.3f}, recall {metrics.recall_at_fpr(bad, good, 0.01):.1%} at 1 %, "
            f"{metrics.recall_at_fpr(bad, good, 0.05):.1%} at 5 %, best F1 {metrics.best_f1(bad, good)[0]:.3f}, "
            f"{each:.3f} ms"
        )


def _read(path: Path) -> list[tuple[str, str]]:
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    return [(row.get("text") or row["prompt"], row["label"]) for row in rows]


def _profanity() -> Score:
    profanity = import_module("profanity_check")
    return lambda text: float(profanity.predict_prob([text])[0])


def _guardian() -> Score:
    guardian = import_module("svguardian")
    serve, runtime = import_module("svguardian.serve"), import_module("svguardian.model.pure_infer")
    model = runtime.PureGuardian.load(guardian.resolve_runtime())

    def score(text: str) -> float:
        return float(serve.analyze(text, model)["risk_score"])

    return score


def _ours(name: str) -> Score:
    detector = import_module(_DETECTORS[name]).make({})
    return lambda text: max(detector.scores(text).values())


if __name__ == "__main__":
    main()
