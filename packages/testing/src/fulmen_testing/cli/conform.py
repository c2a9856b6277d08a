"""`fulmen conform backend|detector NAME`: a plugin against its contract, claim by claim, as a scorecard."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from typing import Any

from fulmen_core.cli import arguments, context
from fulmen_core.cli.output import note, print_json
from fulmen_core.errors import UserError
from fulmen_testing.scorecard import Scorecard, Verdict
from fulmen_testing.subject import GROUPS, Subject


def run(argv: Sequence[str]) -> int:
    """Try every claim. Returns 1 if any failed, 0 otherwise."""
    parser = arguments.parser("fulmen conform", "hold a backend or a detector against its contract", recipe=False)
    parser.add_argument("kind", choices=list(GROUPS), help="what NAME is")
    parser.add_argument(
        "name", metavar="NAME", help="of the backend, as `fulmen backends` lists it, or of the detector"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="repeat the run of a seed; default: drawn afresh")
    parser.add_argument("--settings", metavar="JSON", default="{}", help="of a detector: its table in a policy")
    parser.add_argument(
        "--example", action="append", default=[], metavar="TEXT", help="of a detector: it must find something in this"
    )
    parser.add_argument(
        "--claim", action="append", default=[], metavar="TEXT", help="try only claims whose names contain this"
    )
    parser.add_argument("--patience", type=float, default=300.0, metavar="SECONDS", help="of one claim; default: 300")
    parser.add_argument("--traceback", action="store_true", help="print the tracebacks of claims that failed")
    args = parser.parse_args(argv)
    settings = _settings(args.settings)
    for needed in ("torch", "numpy") if args.kind == "backend" else ("fulmen_safety",):
        _require(needed, args.kind)

    subject = Subject.installed(args.name, context.registry(), settings=settings, examples=tuple(args.example))
    entry = subject.entry(args.kind)
    from fulmen_testing.running import run_suite
    from fulmen_testing.suite_process import Task

    discovery = context.registry().discovery
    assert discovery is not None, "the command line's registry was discovered"
    seed = secrets.randbelow(1 << 32) if args.seed is None else args.seed
    task = Task(
        args.kind,
        args.name,
        discovery.disabled,
        [str(file) for file in discovery.files],
        settings,
        args.example,
        seed,
        args.claim,
    )
    card = Scorecard(args.kind, args.name, entry.distribution, entry.version, seed)
    card.verdicts = run_suite(task, _quietly if args.json else _aloud, args.patience)
    if not card.verdicts:
        raise UserError(f"no claim about a {args.kind} is called {' or '.join(args.claim)}", where="--claim")
    if args.json:
        print_json(card.as_json())
    else:
        print(card.summary())
    if args.traceback:
        for verdict in card.of("failed"):
            note(f"--- {verdict.claim}\n{verdict.detail}")
    return int(bool(card.of("failed")))


def _settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{text!r} is no JSON object", where="--settings", remedy="""write '{"key": "value"}'""")
    return settings


def _require(module: str, kind: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise UserError(
            f"the claims about a {kind} need {module}, which is not installed",
            remedy=f"pip install 'fulmen-testing[{kind}]'",
        )


def _aloud(verdict: Verdict) -> None:
    """Print a verdict as it falls; in colour on a terminal."""
    colours = {"passed": "\x1b[32m", "failed": "\x1b[31m", "skipped": "\x1b[33m"}
    for number, line in enumerate(verdict.lines()):
        if sys.stdout.isatty() and number == 0:
            line = f"{colours[verdict.outcome]}{line[:8]}\x1b[0m{line[8:]}"
        print(line, flush=True)


def _quietly(verdict: Verdict) -> None:
    """On a terminal, show on stderr that something happens."""
    if sys.stderr.isatty():
        note(f"{verdict.outcome}: {verdict.title}")
