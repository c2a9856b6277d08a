"""`fulmen raise probe train`: a model and labelled texts into a head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import print_json, print_table
from fulmen_raise_probe.rows import read_labelled
from fulmen_raise_probe.states import ModelStates, TooLong
from fulmen_raise_probe.training import train
from fulmen_safety import UserError


def run(argv: Sequence[str]) -> int:
    """Train a head and write it with its card.

    Raises:
        UserError: an argument, a file or the model is at fault, or there are too few texts.
    """
    arguments = parser("fulmen raise probe train", "train a linear head on a model's hidden states", recipe=False)
    arguments.add_argument("--model", type=Path, required=True, metavar="DIR", help="the checkpoint")
    arguments.add_argument(
        "--data",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help='JSON Lines of {"prompt" or "text", "label": "safe" or "unsafe", "category"}, or .gz',
    )
    arguments.add_argument("--out", type=Path, required=True, metavar="DIR", help="is made, or replaced")
    arguments.add_argument(
        "--layer", type=int, default=0, metavar="N", help="1 to the last; 0: behind the final norm (%(default)s)"
    )
    arguments.add_argument(
        "--pool", choices=("mean", "last"), default="mean", help="of the tokens; a server gives the last (%(default)s)"
    )
    arguments.add_argument(
        "--map", action="append", default=[], metavar="NAME=CATEGORY", help="the data's name of a category; repeatable"
    )
    arguments.add_argument(
        "--category", default="", metavar="CATEGORY", help="of unsafe texts whose own category is not of the taxonomy"
    )
    arguments.add_argument(
        "--longest", type=int, default=1500, metavar="N", help="characters read of a text (%(default)s)"
    )
    args = arguments.parse_args(argv)
    rows = read_labelled(args.data, dict(_pair(one) for one in args.map), args.category)
    states = ModelStates(args.model, args.layer, args.pool)
    try:
        vectors_ND = states.vectors([row.text[: args.longest] for row in rows])
    except TooLong:
        raise UserError(
            f"a text of {args.longest} characters has more tokens than the model reads",
            remedy="give a smaller --longest",
        ) from None
    head, card = train(rows, vectors_ND, layer=args.layer, pool=args.pool, model=states.fingerprint)
    head.save(args.out, card)
    if args.json:
        print_json({"out": str(args.out), "categories": list(head.categories), **card})
        return 0
    shown = {**card["held_out"], "any of them": card["held_out_any"]}
    table = [
        (
            name,
            str(one["positives"]),
            f"{one['auc']:.3f}",
            f"{one['recall_at_fpr_1pct']:.1%}",
            f"{one['recall_at_fpr_5pct']:.1%}",
        )
        for name, one in shown.items()
    ]
    print_table(("category", "texts kept apart", "AUC", "recall at 1 % false alarms", "at 5 %"), table, empty="none")
    return 0


def _pair(given: str) -> tuple[str, str]:
    name, _, category = given.rpartition("=")
    if not name:
        raise UserError(f"--map {given!r} is no pair", remedy="write --map NAME=CATEGORY")
    return name, category
