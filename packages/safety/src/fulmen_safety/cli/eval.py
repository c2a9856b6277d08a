"""`fulmen raise eval`: how well a policy, or one of its detectors, tells safe texts from unsafe ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulmen_core.cli import arguments, context, output
from fulmen_core.errors import UserError
from fulmen_safety.cli.policy_option import add_policy, given_policy
from fulmen_safety.evaluation.judging import Judge
from fulmen_safety.evaluation.labelled import LabelledText, read_labelled, sha256_of
from fulmen_safety.evaluation.report import Judged, evaluate, judge_all
from fulmen_safety.policy import load_policy

MEASURES = (
    "auc",
    "recall_at_fpr_1pct",
    "recall_at_fpr_5pct",
    "f1",
    "precision",
    "recall",
    "false_alarm_rate",
    "refused",
    "over_refusal",
)


def run(argv: Sequence[str]) -> int:
    """Judge every text of ``--data`` and print the measures; exit code 0 whatever they are.

    Raises:
        UserError: wrong arguments, a file or row that cannot be used, a faulty policy, an unknown detector.
    """
    parser = arguments.parser("fulmen raise eval", "measure a policy or a detector on labelled texts", recipe=False)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="labelled JSON Lines, may be gzipped")
    parser.add_argument("--phase", choices=("input", "output"), default="input", help="default: input")
    parser.add_argument("--detector", metavar="NAME", help="measure this detector alone")
    parser.add_argument("--negatives", type=Path, metavar="FILE", help="safe texts on which false alarms are counted")
    add_policy(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap; default: 0")
    options = parser.parse_args(argv)
    data = read_labelled(options.data, options.phase)
    negatives = _negatives(options.negatives, options.phase) if options.negatives else None
    judge = Judge(load_policy(given_policy(options)), context.registry(), options.phase, options.detector)
    judged = Judged(judge_all(judge, data), None if negatives is None else judge_all(judge, negatives))
    report = {
        "data": _named(options.data),
        "negatives_file": _named(options.negatives) if options.negatives else None,
        "phase": options.phase,
        "detector": options.detector,
        "policy_version": judge.policy.version,
        **evaluate(judged, seed=options.seed),
        "seed": options.seed,
    }
    if options.json:
        output.print_json(report)
    else:
        print_report(report)
    if report["failures"]:
        output.note(
            f"warning: a detector failed on {report['failures']} texts, which count as flagged where it fails closed"
        )
    return 0


def _negatives(path: Path, phase: str) -> list[LabelledText]:
    """The safe rows of a file; a row without a label is safe. Unsafe ones are left out, and it is said."""
    rows = read_labelled(path, phase, label="safe")
    safe = [row for row in rows if not row.unsafe]
    if not safe:
        raise UserError("all texts are labelled unsafe", where=str(path), remedy="--negatives takes safe texts")
    if len(safe) < len(rows):
        output.note(f"{path}: {len(rows) - len(safe)} texts labelled unsafe are left out of the negatives")
    return safe


def _named(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": sha256_of(path)}


def print_report(report: dict[str, Any]) -> None:
    """Print the report as tables."""
    of = report["detector"] or "all detectors"
    print(f"{report['data']['file']}: {report['unsafe']} unsafe, {report['safe']} safe; {of}, phase {report['phase']}")
    rows = []
    for name in MEASURES:
        interval = report["intervals"].get(name)
        rows.append((name, _figure(report[name]), _interval(interval) or report["reasons"].get(name, "")))
    output.print_table(("measure", "value", "95 % interval"), rows, empty="")
    for title, key in (("category", "by_category"), ("language", "by_lang")):
        parts = [
            (
                name or "(none)",
                str(part["unsafe"]),
                str(part["safe"]),
                *(
                    _figure(part[measure])
                    for measure in ("auc", "recall_at_fpr_1pct", "recall_at_fpr_5pct", "recall", "false_alarm_rate")
                ),
                _interval(part["intervals"].get("recall")),
            )
            for name, part in report[key].items()
        ]
        columns = (title, "unsafe", "safe", "auc", "recall@1%", "recall@5%", "recall", "false alarms", "recall 95 %")
        output.print_table(columns, parts, empty="")
    times = report["ms"]
    print(
        f"{report['ms_per_item']:.3f} ms a text; p50 {times['p50']:.3f}, p95 {times['p95']:.3f}, "
        f"p99 {times['p99']:.3f}, max {times['max']:.3f}"
    )
    output.note(f"policy {report['policy_version']}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
