"""`fulmen data safety-pairs`: RAISE-2's alignment pairs, from labelled prompts and the policy's safe completions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fulmen_core.cli import arguments, context, output


def run(argv: Sequence[str]) -> int:
    """Make the pairs, write them, and print how many of which kind there are and what was left out.

    Raises:
        UserError: wrong arguments, faulty prompts, a category that the policy does not know, or no pair is left.
    """
    parser = arguments.parser("fulmen data safety-pairs", "make preference pairs of labelled prompts", recipe=False)
    labels = '{"prompt", "label": "safe" or "unsafe", "category"?, "answers"?} a line'
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help=labels)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the pairs go")
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="a policy file or profile; default: the guard's own"
    )
    args = parser.parse_args(argv)

    from fulmen_trainer.safety_pairs import write_safety_pairs

    counts = write_safety_pairs(args.prompts, args.out, context.registry().guard("raise", args.policy))
    if args.json:
        output.print_json({"out": str(args.out), **counts})
        return 0
    rows = [
        (name, key, f"{count:,}")
        for name in ("kinds", "languages", "categories")
        for key, count in counts[name].items()
    ]
    rows += [("left out", reason, f"{count:,}") for reason, count in counts["left_out"].items()]
    output.print_table(("", "", "prompts"), rows, empty="nothing")
    output.note(f"{counts['pairs']:,} pairs are in {args.out}")
    return 0
