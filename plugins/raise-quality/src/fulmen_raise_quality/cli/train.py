"""`fulmen raise quality train`: texts into a scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import print_json
from fulmen_raise_quality.training import train
from fulmen_safety import UserError
from fulmen_safety.jsonl import read_rows, text_of


def run(argv: Sequence[str]) -> int:
    """Train a scorer and write it with its card.

    Raises:
        UserError: an argument or a file is at fault, or there are too few texts.
    """
    arguments = parser("fulmen raise quality train", "train a scorer of quality from texts", recipe=False)
    arguments.add_argument(
        "--good",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help="documents as they should be: JSON Lines or .gz",
    )
    arguments.add_argument(
        "--bad", nargs="*", type=Path, default=[], metavar="FILE", help="documents as they should not be; default: none"
    )
    arguments.add_argument("--out", type=Path, required=True, metavar="DIR", help="is made, or replaced")
    arguments.add_argument(
        "--slot-bits", type=int, default=18, metavar="N", help="tables of 2**N slots; 18 are 2 MB a model (%(default)s)"
    )
    args = arguments.parse_args(argv)
    if not 10 <= args.slot_bits <= 24:
        raise UserError(f"--slot-bits is {args.slot_bits}", remedy="give 10 to 24")
    good, bad = (
        [text_of(row, place) for path in paths for place, row in read_rows(path)] for paths in (args.good, args.bad)
    )
    scorer, card = train(good, bad, args.slot_bits)
    scorer.save(args.out, card)
    if args.json:
        print_json({"out": str(args.out), **card})
        return 0
    print(f"{args.out}: trained on {card['trained_on']['good']} good and {card['trained_on']['bad']} bad texts")
    for language, figures in card["held_out"].items():
        shown = ", ".join(f"{one['flagged']:.1%} of {one['texts']} {name}" for name, one in figures.items())
        print(f"  {language}: of the texts kept apart it flags {shown}")
    return 0
