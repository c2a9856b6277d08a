"""`fulmen raise train`: labelled texts in, a detector's model and its data card out."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulmen_core.cli import arguments, output
from fulmen_core.errors import UserError


def run(argv: Sequence[str]) -> int:
    """Train, write the model and print its figures.

    Raises:
        UserError: wrong arguments, rows that cannot be read or learned from, a folder that cannot be written,
            scikit-learn missing.
    """
    options = _parser().parse_args(argv)
    from fulmen_safety.learned.artefact import write
    from fulmen_safety.learned.bert_weights import read_bert
    from fulmen_safety.learned.rows import read_rows, read_vectors
    from fulmen_safety.learned.training import Options, train

    names = _names(options.categories)
    rows = read_rows(options.data, names, default=options.category)
    rows += [row for row in read_rows(options.negatives, names, default=options.category) if not row.unsafe]
    chosen = Options(
        kind=options.kind,
        bits=options.bits,
        window=options.window,
        strength=options.strength,
        folds=options.folds,
        held_out=options.held_out,
        worst_of_safe=options.worst_of_safe,
        epochs=options.epochs,
        gate_loss=options.gate_loss,
        short_gate_loss=options.short_gate_loss,
        seed=options.seed,
    )
    if options.encoder and options.kind == "linear":
        raise UserError("--encoder is for --kind transformer alone", remedy="add --kind transformer")
    _refuse_what_is_in_the_way(options.out)
    vectors = read_vectors(options.words) if options.words else None
    trained = train(rows, chosen, vectors, read_bert(options.encoder) if options.encoder else None)
    write(options.out, trained.model, trained.card)
    if options.json:
        output.print_json(dict(trained.card))
    else:
        _print(options.out, trained.card)
    return 0


def _parser() -> arguments.Parser:
    parser = arguments.parser("fulmen raise train", "train a detector on labelled texts", recipe=False)
    many: dict[str, Any] = {"type": Path, "nargs": "+", "action": "extend", "metavar": "FILE"}
    parser.add_argument("--data", required=True, help="JSON Lines, plain or .gz, with a text and a label", **many)
    parser.add_argument("--negatives", default=[], help="more files, of which the safe rows alone are taken", **many)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the model and its data card")
    parser.add_argument("--categories", type=Path, metavar="TOML", help="the data's categories = the taxonomy's")
    parser.add_argument(
        "--category", default="", metavar="CODE", help="of the taxonomy, for unsafe rows with none or an unknown one"
    )
    parser.add_argument("--kind", choices=("linear", "transformer"), default="linear", help="default: linear")
    parser.add_argument("--bits", type=_within(10, 22), default=18, help="2**bits rows of weights; default: 18")
    parser.add_argument("--window", type=_within(50, 20_000), default=600, help="characters judged together")
    parser.add_argument("--strength", type=_positive, default=1.0, help="of the data against the regulariser")
    parser.add_argument("--folds", type=_within(2, 20), default=5, help="of the cross-validation; default: 5")
    parser.add_argument(
        "--worst-of-safe", action="store_true", help="the worst stretch of a long safe text weighs as a text of its own"
    )
    parser.add_argument("--held-out", type=_share, default=0.0, help="share of the groups never trained on; default: 0")
    parser.add_argument("--epochs", type=_within(1, 1000), default=12, help="of the Transformer; default: 12")
    parser.add_argument("--words", type=Path, metavar="SAFETENSORS", help="hashes and vectors its words start from")
    parser.add_argument(
        "--encoder",
        type=Path,
        metavar="SAFETENSORS",
        help="a small BERT that was trained before, in the Transformer's place",
    )
    parser.add_argument(
        "--gate-loss", type=_share, default=0.003, metavar="SHARE",
        help="of what linear model and Transformer find, that may not reach the Transformer; default: 0.003",
    )  # fmt: skip
    parser.add_argument(
        "--short-gate-loss", type=_share, default=0.003, metavar="SHARE",
        help="the same of texts of at most 200 characters, which it reads fast; default: 0.003",
    )  # fmt: skip
    parser.add_argument("--seed", type=_within(0, 2**31 - 1), default=0, help="of folds and bootstrap; default: 0")
    return parser


def _within(low: int, high: int) -> Any:
    def whole(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    whole.__name__ = f"number from {low} to {high}"
    return whole


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


_positive.__name__ = "number above 0"


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number < 0.9:
        raise ValueError
    return number


_share.__name__ = "share from 0 to 0.9"


def _names(path: Path | None) -> dict[str, str | list[str]]:
    if path is None:
        return {}
    remedy = 'write lines such as "Fraud/Deception" = "nonviolent_crime"'
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot read it: {getattr(error, 'strerror', None) or error}"
        raise UserError(what, where=str(path), remedy=remedy) from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not TOML: {error}", where=str(path), remedy=remedy) from error
    for name, meant in table.items():
        codes = meant if isinstance(meant, list) else [meant]
        if not codes or not all(isinstance(code, str) for code in codes):
            raise UserError(f"{name!r} is no category or list of categories", where=str(path), remedy=remedy)
    return table


def _refuse_what_is_in_the_way(out: Path) -> None:
    """A folder that holds something else than a model is not replaced."""
    from fulmen_safety.learned.artefact import CARD, WEIGHTS

    if out.is_file() or (out.is_dir() and {one.name for one in out.iterdir()} - {CARD, WEIGHTS}):
        raise UserError("there is something else than a model", where=str(out), remedy="name another --out")


def _print(out: Path, card: dict[str, Any]) -> None:
    figures = card.get("held_out") or card["cross_validation"]
    rows = [
        (
            language,
            str(told["unsafe"]),
            str(told["safe"]),
            f"{told['auc']:.3f}",
            f"{told['recall_at_fpr_1%']['recall']:.1%}",
            f"{told['recall_at_fpr_5%']['recall']:.1%}",
            f"{told['best_f1']:.3f}",
            f"{told['recall_at_fpr_1%']['threshold']:.2f}",
        )
        for language, told in figures["by_lang"].items()
    ]
    columns = ("language", "unsafe", "safe", "AUC", "recall at 1 %", "recall at 5 %", "best F1", "threshold at 1 %")
    output.print_table(columns, rows, empty="too few rows of each label in any language for figures")
    output.note(f"{out}: sha256 {card['sha256']}")
