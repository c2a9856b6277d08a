"""`fulmen raise quality report`: what the detector says of a corpus, rule by rule, and how fast."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import print_json, print_table
from fulmen_raise_quality.detector import make
from fulmen_raise_quality.units import units_of
from fulmen_safety.jsonl import read_rows, text_of


def run(argv: Sequence[str]) -> int:
    """Judge every document of the files and print counts. The exit code is 0 whatever is found.

    Raises:
        UserError: an argument, a file or the scorer is at fault.
    """
    arguments = parser("fulmen raise quality report", "judge the documents of a corpus", recipe=False)
    arguments.add_argument("files", nargs="+", type=Path, metavar="FILE", help='JSON Lines of {"text": ...}, or .gz')
    arguments.add_argument("--scorer", default="", metavar="DIR", help="what `fulmen raise quality train` wrote")
    arguments.add_argument(
        "--threshold", type=float, default=0.5, metavar="P", help="count findings from this score on (%(default)s)"
    )
    arguments.add_argument("--first", type=int, default=0, metavar="N", help="of each file; default: all documents")
    args = arguments.parse_args(argv)
    detector = make({"scorer": args.scorer, "floor": args.threshold})
    reports = []
    for path in args.files:
        rules: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        documents = flagged = size = 0
        seconds = 0.0
        for place, row in read_rows(path):
            if args.first and documents == args.first:
                break
            text = text_of(row, place)
            began = time.perf_counter()
            found = detector.scan(text)
            seconds += time.perf_counter() - began
            documents, size = documents + 1, size + len(text.encode("utf-8", "surrogatepass"))
            flagged += bool(found)
            rules.update(one.label for one in found)
            kinds[units_of(text).kind] += 1
        reports.append(_report(path, documents, flagged, size, seconds, rules, kinds))
    if args.json:
        print_json(reports)
        return 0
    rows = [
        (
            one["file"],
            f"{one['documents']:,}",
            f"{one['flagged_share']:.1%}",
            f"{one['megabytes_per_second']:.1f}",
            ", ".join(f"{rule} {count}" for rule, count in one["rules"].items()),
        )
        for one in reports
    ]
    print_table(("file", "documents", "flagged", "MB/s", "by rule"), rows, empty="no files")
    return 0


def _report(
    path: Path, documents: int, flagged: int, size: int, seconds: float, rules: Counter[str], kinds: Counter[str]
) -> dict[str, Any]:
    return {
        "file": path.name,
        "documents": documents,
        "kinds": dict(kinds.most_common()),
        "flagged": flagged,
        "flagged_share": round(flagged / max(documents, 1), 4),
        "rules": dict(rules.most_common()),
        "megabytes": round(size / 1e6, 3),
        "megabytes_per_second": round(size / 1e6 / max(seconds, 1e-9), 2),
    }
