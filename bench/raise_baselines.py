"""RAISE's detectors beside packaged guards on the same texts in one run: hits, false alarms, errors, milliseconds.

    python -m venv peers
    peers/bin/pip install alt-profanity-check==1.9.1 better-profanity==0.7.0 securevector-guardian-model==1.4.0
    python bench/raise_baselines.py --data DIR --peers peers/bin/python [--negatives FILE] [--detector NAME[+NAME]]
        [--most N] [--json]

DIR is a labelled file or a folder of such, as `fulmen raise eval` reads them (``*.jsonl``, ``*.jsonl.gz``); what has no
labels is left out. ``--negatives`` are safe texts for files that have none of their own. An error is a decision that is
wrong at the contestant's own threshold. Without ``--peers``, RAISE is measured alone. Each file's heading compares
RAISE's best contestant with the best package: 0.80 or less is at least 20 % fewer errors. ``NAME+NAME`` flags what any
of its detectors flags. Detectors say nothing on texts that they were trained on; their cards name these.
``toxic_texts.py`` makes a file of toxic comments that none of ours was trained on.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fulmen_core.errors import UserError
from fulmen_core.registry import Registry
from fulmen_safety.evaluation.judging import Judge
from fulmen_safety.evaluation.labelled import LabelledText, read_labelled, sha256_of
from fulmen_safety.evaluation.metrics import Confusion, auc, recall_at_fpr
from fulmen_safety.policy import load_policy

WORKER = Path(__file__).parent / "workers/packaged_guards.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every file of the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--negatives", type=Path, metavar="FILE")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="of an environment with the packages")
    parser.add_argument("--policy", type=Path, metavar="FILE")
    parser.add_argument("--phase", choices=("input", "output"), default="input")
    parser.add_argument("--most", type=int, default=1000, metavar="N", help="texts of each label (%(default)s)")
    parser.add_argument(
        "--detector", action="append", default=[], metavar="NAME[+NAME]", help="also those that are not in the policy"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    ours = contestants(options.policy, options.phase, options.detector)
    together = [name.split("+") for name in options.detector if "+" in name]
    ordinary = read_labelled(options.negatives, options.phase, label="safe") if options.negatives else []
    report = {}
    for path in [options.data] if options.data.is_file() else sorted(options.data.glob("*.jsonl*")):
        try:
            texts = read_labelled(path, options.phase)
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if all(text.unsafe for text in texts):
            texts += [text for text in ordinary if not text.unsafe]
        drawn = draw(texts, options.most, options.seed)
        own = {name: judged(judge, drawn) for name, judge in ours.items()}
        own |= {f"raise {'+'.join(names)}": any_of([own[f"raise {name}"] for name in names]) for names in together}
        rows = own | packaged(options.peers, drawn)
        report[path.name] = {"sha256": sha256_of(path), **compared(drawn, rows, own)}
        if not options.json:
            show(path.name, report[path.name])
    if options.json:
        print(json.dumps(report, indent=2))
    return 0


def contestants(policy: Path | None, phase: str, more: Sequence[str]) -> dict[str, Judge]:
    """The whole policy, and each of its detectors of the phase alone."""
    loaded, registry = load_policy(policy), Registry.discover()
    whole = Judge(loaded, registry, phase)
    names = [detector.name for detector in whole.guard.panel.detectors(phase)]
    parts = [part for name in more for part in name.split("+")]
    alone = {f"raise {name}": Judge(loaded, registry, phase, name) for name in dict.fromkeys((*names, *parts))}
    return {"raise": whole, **alone}


def draw(texts: Sequence[LabelledText], most: int, seed: int) -> list[LabelledText]:
    """Up to `most` texts of each label."""
    drawn = []
    for unsafe in (True, False):
        kind = [text for text in texts if text.unsafe == unsafe]
        drawn += random.Random(seed).sample(kind, min(most, len(kind)))
    return drawn


def judged(judge: Judge, texts: Sequence[LabelledText]) -> dict[str, Any]:
    """What the judge makes of each text."""
    judge.judge("hello")
    all_of = [judge.judge(text.text, text.prompt) for text in texts]
    return {
        "scores": [one.score for one in all_of],
        "flags": [one.flagged for one in all_of],
        "ms": [one.milliseconds for one in all_of],
    }


def any_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several detectors make of each text together."""
    return {
        "scores": np.max([one["scores"] for one in rows], axis=0).tolist(),
        "flags": np.any([one["flags"] for one in rows], axis=0).tolist(),
        "ms": np.sum([one["ms"] for one in rows], axis=0).tolist(),
    }


def packaged(python: Path | None, texts: Sequence[LabelledText]) -> dict[str, dict[str, Any]]:
    """What the packages make of each text, in their own environment."""
    if python is None:
        return {}
    given = json.dumps([text.text for text in texts])
    done = subprocess.run([python, str(WORKER)], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{WORKER.name} failed: {done.stderr.strip()[-400:]}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    for name, row in found.items():
        if "absent" in row:
            print(f"{name} is left out: {row['absent']}", file=sys.stderr)
    return {name: row for name, row in found.items() if "absent" not in row}


def compared(
    texts: Sequence[LabelledText], rows: Mapping[str, Mapping[str, Any]], ours: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of each contestant, and the ratio of the fewest errors on either side."""
    unsafe = np.array([text.unsafe for text in texts])
    table = {name: figures(unsafe, row) for name, row in rows.items()}
    own = [row["errors"] for name, row in table.items() if name in ours]
    others = [row["errors"] for name, row in table.items() if name not in ours]
    ratio = min(own) / min(others) if others and min(others) else None
    return {"unsafe": int(unsafe.sum()), "safe": int((~unsafe).sum()), "contestants": table, "errors_to_best": ratio}


def figures(unsafe: np.ndarray[Any, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """One contestant's figures."""
    flags, scores = np.array(row["flags"], bool), np.array(row["scores"], float)
    counted = Confusion.of(flags[unsafe], flags[~unsafe])
    both = unsafe.any() and not unsafe.all()
    return {
        "hits": counted.true_positives,
        "false_alarms": counted.false_positives,
        "errors": counted.errors,
        "f1": counted.f1 if both else None,
        "auc": auc(scores[unsafe], scores[~unsafe]) if both else None,
        "recall_at_fpr_1pct": recall_at_fpr(scores[unsafe], scores[~unsafe], 0.01) if both else None,
        "recall_at_fpr_5pct": recall_at_fpr(scores[unsafe], scores[~unsafe], 0.05) if both else None,
        "ms": float(np.mean(row["ms"])),
    }


def show(name: str, cell: Mapping[str, Any]) -> None:
    """Print one file's table."""
    ratio = "" if cell["errors_to_best"] is None else f"; errors {cell['errors_to_best']:.2f} of the best package's"
    print(f"\n{name}: {cell['unsafe']} unsafe, {cell['safe']} safe{ratio}")
    print(f"{'':28} {'hits':>6} {'alarms':>6} {'errors':>6} {'f1':>6} {'auc':>6} {'@1%':>6} {'@5%':>6} {'ms':>7}")
    for contestant, row in cell["contestants"].items():
        rest = [row[key] for key in ("f1", "auc", "recall_at_fpr_1pct", "recall_at_fpr_5pct")]
        figures_of = " ".join(f"{'-' if value is None else f'{value:.3f}':>6}" for value in rest)
        counts = " ".join(f"{row[key]:>6}" for key in ("hits", "false_alarms", "errors"))
        print(f"{contestant:28} {counts} {figures_of} {row['ms']:>7.3f}")


if __name__ == "__main__":
    sys.exit(main())
