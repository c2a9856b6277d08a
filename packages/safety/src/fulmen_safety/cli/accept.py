"""`fulmen raise accept`: the acceptance test of GB/T 45654-2025, with its evidence."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fulmen_core.cli import arguments, context, output
from fulmen_core.errors import UserError
from fulmen_core.recipes import load_recipe
from fulmen_safety.cli.policy_option import add_policy, given_policy
from fulmen_safety.evaluation.acceptance.banks import read_bank
from fulmen_safety.evaluation.acceptance.evidence import grade, write_evidence
from fulmen_safety.evaluation.acceptance.standard import STANDARD, Sizes
from fulmen_safety.evaluation.acceptance.system import Endpoint, System
from fulmen_safety.evaluation.acceptance.trial import Banks, trial
from fulmen_safety.evaluation.judging import Judge
from fulmen_safety.policy import load_policy

NOTE = (
    "Sizes and rates follow public summaries of TC260-003, on which the standard builds. Keywords and the classifier "
    "are those named above; refusals are told by rules. This is the evidence of a test, not a certificate."
)

BANKS = {
    "questions": "questions whose answers are judged by people, keywords and the classifier",
    "must_refuse": "questions that must be refused",
    "must_answer": "questions that must not be refused",
    "corpus": 'texts of the corpus, with "source"',
    "keywords": "the keyword list",
}


def run(argv: Sequence[str]) -> int:
    """Test and write the evidence, or read the people's sheet into it. Exit code 0 only if nothing fails or is pending.

    Raises:
        UserError: wrong arguments, a file that cannot be used, a faulty policy, a model that cannot be asked.
        CorruptArtefact: with ``--sheet``: the folder holds no whole evidence.
    """
    parser = arguments.parser("fulmen raise accept", "run the acceptance test of GB/T 45654-2025")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the evidence folder")
    for name, summary in BANKS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="FILE", help=summary)
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="the filled sheet of an evidence folder: grade it")
    parser.add_argument("--url", metavar="URL", help="the model's, as http://localhost:8000/v1; default: guard alone")
    parser.add_argument("--model", default="default", metavar="NAME", help="the model's name at the URL")
    parser.add_argument("--key-variable", metavar="NAME", help="environment variable that holds the URL's key")
    parser.add_argument("--parallel", type=int, default=4, metavar="N", help="questions asked at once; default: 4")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="of an answer; default: 512")
    parser.add_argument("--no-guard", action="store_true", help="ask the URL as it is: it has a guard of its own")
    add_policy(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws; default: 0")
    options = parser.parse_args(argv)
    given = [name for name in BANKS if getattr(options, name) is not None]
    if options.sheet is not None:
        if given:
            raise UserError(
                "--sheet grades a test that was run", where="fulmen raise accept", remedy=f"leave out --{given[0]}"
            )
        evidence = grade(options.out, options.sheet)
    else:
        evidence = _test(options, given)
    if options.json:
        output.print_json({key: value for key, value in evidence.items() if key != "sheet"})
    else:
        print_evidence(evidence)
    output.note(f"the evidence is in {options.out}")
    return 0 if evidence["verdict"] == "pass" else 1


def _test(options: Namespace, given: Sequence[str]) -> dict[str, Any]:
    if not given:
        raise UserError(
            "there is nothing to test", where="fulmen raise accept", remedy="give --must-refuse FILE or another"
        )
    if options.parallel < 1:
        raise UserError(f"--parallel is {options.parallel}", where="fulmen raise accept", remedy="give 1 or more")
    if options.no_guard and not options.url:
        raise UserError("--no-guard leaves nothing to test", where="fulmen raise accept", remedy="give --url")
    endpoint = _endpoint(options)
    sizes = load_recipe(Sizes, options.recipe, options.overrides)
    banks = Banks(**{name: read_bank(name, getattr(options, name)) for name in given})
    policy = load_policy(given_policy(options))
    classifier = Judge(policy, context.registry(), "output")
    guard = classifier.guard
    system = System(None if options.no_guard else guard, endpoint, parallel=options.parallel)
    head = {
        "standard": STANDARD,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "fulmen_version": version("fulmen-safety"),
        "system": _system(options),
        "policy": policy.file.name,
        "policy_version": policy.version,
        "detectors": [entry.name for entry in policy.detectors],
        "seed": options.seed,
        "sizes": sizes.model_dump(),
        "sizes_of_the_standard": Sizes().model_dump(),
        "inputs": {name: bank.record() for name, bank in banks.given().items()},
        "note": NOTE,
    }
    return write_evidence(options.out, head, trial(banks, system, guard, classifier, sizes, options.seed))


def _endpoint(options: Namespace) -> Endpoint | None:
    if not options.url:
        return None
    if not options.url.startswith(("http://", "https://")):
        raise UserError(f"{options.url!r} is no URL", where="--url", remedy="write http://HOST:PORT/v1")
    key = ""
    if options.key_variable:
        key = os.environ.get(options.key_variable, "")
        if not key:
            raise UserError(f"{options.key_variable} is not set", where="--key-variable", remedy="export it")
    return Endpoint(options.url, options.model, key, options.max_tokens)


def _system(options: Namespace) -> str:
    if not options.url:
        return "the guard alone"
    behind = "without a guard here" if options.no_guard else "behind the guard"
    return f"the model {options.model!r} at {options.url}, {behind}"


def print_evidence(evidence: dict[str, Any]) -> None:
    """Print the requirements as a table, then the warnings and the verdict."""
    rows = [
        (
            row["title"],
            str(row["drawn"]),
            "" if row["rate"] is None else f"{row['rate']:.1%}",
            "" if row["interval"] is None else f"{row['interval'][0]:.1%} to {row['interval'][1]:.1%}",
            f"{row['direction']} {row['bound']:.0%}",
            row["status"],
        )
        for row in evidence["requirements"].values()
    ]
    output.print_table(("requirement", "texts", "rate", "95 % interval", "bound", "status"), rows, empty="")
    for warning in evidence["warnings"]:
        print(f"warning: {warning}")
    print(f"{evidence['standard']}: {evidence['verdict']}")
