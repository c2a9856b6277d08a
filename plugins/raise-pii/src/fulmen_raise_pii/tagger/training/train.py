"""``python -m fulmen_raise_pii.tagger.training.train``: makes ``data/tagger.safetensors`` and its data card.

Cross-validation comes first, with whole templates left out: its figures go into the card, and its precision becomes the
score of findings. The shipped weights are then trained on everything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fulmen_raise_pii.tagger.decode import decode
from fulmen_raise_pii.tagger.emissions import Emissions
from fulmen_raise_pii.tagger.tokens import blocks
from fulmen_raise_pii.tagger.training.name_lists import Fillers, gazetteer
from fulmen_raise_pii.tagger.training.perceptron import train
from fulmen_raise_pii.tagger.training.sentences import (
    BARE,
    KINDS,
    Sentence,
    filled,
    grouped_folds,
    is_bare,
    labelled,
    read_plain,
    read_sentences,
    read_templates,
    read_written,
    written_files,
)
from fulmen_raise_pii.tagger.weights import FILE, Tagger, save
from fulmen_safety import UserError

ROWS = 1 << 17
EPOCHS = 10
HIDE = 0.15
COST = 60
MARGIN = 50
SEED = 3
SHOWN = 6  # times that each labelled sentence is shown in an epoch: they are few beside what is made of templates
FILLED = 8000  # sentences made of the data's templates
PLAIN = 5000  # paragraphs without personal data
FOLDS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write; return the exit code. Raises `UserError` for a file that is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help='JSONL of {"text","spans","template_id","source"}')
    parser.add_argument("--templates", type=Path, required=True, help='JSONL of {"template"}')
    parser.add_argument("--written", type=Path, help="folder of .txt: more templates, one a line, each filled once")
    parser.add_argument("--plain", type=Path, nargs="*", default=[], help='JSONL of {"text"} without personal data')
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and their card")
    parser.add_argument(
        "--measured",
        type=Path,
        metavar="FILE",
        help="do not cross-validate; take the figures from a card, or from a report of `bench/pii.py --by template`",
    )
    options = parser.parse_args(arguments)
    templates = read_templates(options.templates)
    sentences = read_sentences(options.data, templates)
    own = written_files(options.written) if options.written else []
    written = read_written(own)
    rng = random.Random(SEED)
    plain = [one for path in options.plain for one in read_plain(path, PLAIN // len(options.plain), rng)]
    if options.measured:
        measured = _read_figures(json.loads(options.measured.read_text("utf-8")))
    else:
        measured = _cross_validated(sentences, templates, written, plain)
    precision = tuple(measured["precision"][kind] for kind in KINDS)
    tagger = fit(sentences, templates, plain, left_out=(), written=written, precision=precision)
    options.out.mkdir(parents=True, exist_ok=True)
    save(tagger, options.out / FILE)
    card = {
        "file": FILE,
        "sha256": hashlib.sha256((options.out / FILE).read_bytes()).hexdigest(),
        "model": "linear chain over hashed features, averaged structured perceptron with integer arithmetic",
        "data": {path.name: _described(path) for path in (options.data, options.templates, *own, *options.plain)},
        "name_lists": f"Faker {version('Faker')} (MIT)",
        "sentences": {
            "labelled": len(sentences),
            "shown": SHOWN,
            "filled": FILLED,
            "written": len(written),
            "plain": len(plain),
        },
        "settings": {"rows": ROWS, "epochs": EPOCHS, "hide": HIDE, "cost": COST, "margin": MARGIN, "seed": SEED},
        "cross_validation": measured,
        "for": "names, addresses and the like in English text, other Latin names included",
        "not_for": "text in other languages; decisions about people; proof that a text has no personal data",
    }
    (options.out / "tagger.card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
    sys.stdout.write(f"{card['sha256']}\n")
    return 0


def fit(
    sentences: Iterable[Sentence],
    templates: Sequence[str],
    plain: Sequence[Sentence],
    *,
    left_out: Iterable[str],
    written: Sequence[str] = (),
    precision: tuple[float, ...] = (),
) -> Tagger:
    """Train on labelled sentences, filled templates but those of the groups `left_out`, `written` ones, and plain
    text."""
    listed = gazetteer()
    fillers = Fillers(SEED)
    barred = set(left_out)
    pool = [(f"template {place}", template) for place, template in enumerate(templates)]
    if any(group.startswith(BARE) for group in barred):
        barred |= {group for group, template in pool if is_bare(template)}
    pool = [(group, template) for group, template in pool if group not in barred]
    made = [
        filled(template, group, fillers.slots, fillers.rng)
        for group, template in (pool[place % len(pool)] for place in range(FILLED))
    ]
    made += [filled(template, "written", fillers.slots, fillers.rng) for template in written]
    shown = list(sentences) * SHOWN
    examples = [block for one in (*shown, *made, *plain) for block in labelled(one) if block[0]]
    weights = train(
        examples, listed, labels=2 * len(KINDS) + 1, rows=ROWS, epochs=EPOCHS, hide=HIDE, cost=COST, seed=SEED
    )
    return Tagger(weights.features, weights.moves, listed, KINDS, precision or tuple(0.5 for _ in KINDS), MARGIN)


def found_in(tagger: Tagger, emissions: Emissions, text: str) -> set[tuple[int, int, str]]:
    """Return the spans that the tagger finds, as it labels them."""
    return {
        (block.starts[first], block.ends[end - 1], tagger.kinds[kind])
        for block in blocks(text)
        for first, end, kind in decode(emissions.scores(block.words), tagger.moves, tagger.margin)
    }


def _cross_validated(
    sentences: Sequence[Sentence], templates: Sequence[str], written: Sequence[str], plain: Sequence[Sentence]
) -> dict[str, dict[str, float]]:
    right: Counter[str] = Counter()
    said: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    fold_of = grouped_folds(sentences, FOLDS, SEED)
    for fold in range(FOLDS):
        held = [one for one in sentences if fold_of[one.group] == fold]
        known = [one for one in sentences if fold_of[one.group] != fold]
        tagger = fit(known, templates, plain, left_out={one.group for one in held}, written=written)
        emissions = Emissions(tagger.features, tagger.gazetteer)
        for one in held:
            gold = {span for span in one.spans if span[2] in KINDS}
            found = found_in(tagger, emissions, one.text)
            right.update(kind for _, _, kind in gold & found)
            said.update(kind for _, _, kind in found)
            wanted.update(kind for _, _, kind in gold)
    kinds = dict.fromkeys(KINDS, 0.5)
    return {
        "precision": {kind: _share(right[kind], said[kind]) for kind in kinds},
        "recall": {kind: _share(right[kind], wanted[kind]) for kind in kinds},
        "f1": {kind: _share(2 * right[kind], said[kind] + wanted[kind]) for kind in kinds}
        | {"all": _share(2 * right.total(), said.total() + wanted.total())},
    }


def _read_figures(stored: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the figures of a card, or of a report of the benchmark, which does not tell parts of addresses from whole
    ones."""
    if "cross_validation" in stored:
        read: dict[str, dict[str, float]] = stored["cross_validation"]
        return read
    by_kind = stored["fulmen"]["by_kind"]
    figures = {
        name: {kind: round(by_kind[kind.removesuffix("_part")][name], 3) for kind in KINDS}
        for name in ("precision", "recall", "f1")
    }
    figures["f1"]["all"] = round(stored["fulmen"]["strict"]["f1"], 3)
    return figures


def _share(part: int, whole: int) -> float:
    return round(part / whole, 3) if whole else 0.5


def _described(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
