"""`fulmen raise redteam`: which attacks get unsafe texts past the guard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulmen_core.cli import arguments, context, output
from fulmen_core.errors import UserError
from fulmen_safety.cli.policy_option import add_policy, given_policy
from fulmen_safety.evaluation.attacks import attacks, chosen
from fulmen_safety.evaluation.judging import Judge
from fulmen_safety.evaluation.labelled import read_labelled, sha256_of
from fulmen_safety.evaluation.survival import sample, survival
from fulmen_safety.policy import load_policy


def run(argv: Sequence[str]) -> int:
    """Attack the texts of ``--data`` and print how many survive; exit code 0 however many do.

    Raises:
        UserError: wrong arguments, a file or row that cannot be used, a faulty policy, an unknown attack or detector.
    """
    parser = arguments.parser("fulmen raise redteam", "attack a guard with disguised unsafe texts", recipe=False)
    parser.add_argument("--data", type=Path, metavar="FILE", help="labelled JSON Lines, as `raise eval` reads them")
    parser.add_argument("--attack", nargs="+", action="extend", default=[], metavar="NAME", help="attacks or families")
    parser.add_argument("--list", action="store_true", help="list the attacks")
    parser.add_argument("--detector", metavar="NAME", help="attack this detector alone")
    add_policy(parser)
    parser.add_argument("--limit", type=int, default=200, metavar="N", help="texts of each label; default: 200")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw and the disguises; default: 0")
    options = parser.parse_args(argv)
    if options.list:
        return _list(json=options.json)
    if options.data is None:
        raise UserError("--data is missing", where="fulmen raise redteam", remedy="give a file of labelled texts")
    if options.limit < 1:
        raise UserError(f"--limit is {options.limit}", where="fulmen raise redteam", remedy="give 1 or more")
    wanted = chosen(options.attack)
    texts = sample(read_labelled(options.data, "input", label="unsafe"), options.limit, options.seed)
    judge = Judge(load_policy(given_policy(options)), context.registry(), "input", options.detector)
    report = {
        "data": {"file": options.data.name, "sha256": sha256_of(options.data)},
        "detector": options.detector,
        "policy_version": judge.policy.version,
        "unsafe": sum(text.unsafe for text in texts),
        "safe": sum(not text.unsafe for text in texts),
        "seed": options.seed,
        **survival(judge, texts, wanted, seed=options.seed),
    }
    if options.json:
        output.print_json(report)
    else:
        print_report(report)
    if report["failures"]:
        failures = f"a detector failed in {report['failures']} judgements"
        output.note(f"warning: {failures}, which count as flagged where it fails closed")
    return 0


def _list(*, json: bool) -> int:
    known = attacks().values()
    if json:
        output.print_json([{"name": one.name, "family": one.family, "summary": one.summary} for one in known])
    else:
        rows = [(one.name, one.family, ", ".join(one.languages), one.summary) for one in known]
        output.print_table(("attack", "family", "languages", "what it does"), rows, empty="")
    return 0


def print_report(report: dict[str, Any]) -> None:
    """Print the report as a table, an attack a row."""
    print(f"{report['data']['file']}: {report['unsafe']} unsafe, {report['safe']} safe texts")
    languages = sorted({lang for row in report["attacks"].values() for lang in row["by_lang"]})
    columns = ("attack", "family", "texts", "survival", "95 % interval", *languages, "gained", "false alarms")
    rows = [
        (
            name,
            row["family"],
            str(row["texts"]),
            _figure(row["survival"]),
            f"{row['interval'][0]:.3f} to {row['interval'][1]:.3f}" if row["interval"] else "",
            *(_figure(row["by_lang"].get(lang, {}).get("survival")) for lang in languages),
            _figure(row["gained"]),
            _figure(row["false_alarm_rate"]),
        )
        for name, row in report["attacks"].items()
    ]
    output.print_table(columns, rows, empty="")
    print("gained: of the texts that are flagged as they are, the share that the attack gets past the guard")
    output.note(f"policy {report['policy_version']}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
