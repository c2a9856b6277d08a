"""From rows to a model: what is learned, what is put aside, what is written, and what is refused."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fulmen_core.cli import main
from fulmen_core.errors import CorruptArtefact
from fulmen_safety import UserError
from fulmen_safety.learned.artefact import CARD, WEIGHTS, read, serialised, write
from fulmen_safety.learned.calibration import fitted
from fulmen_safety.learned.fitting import CATEGORY_BITS
from fulmen_safety.learned.grouping import groups
from fulmen_safety.learned.rows import Row, read_rows
from fulmen_safety.learned.splits import aside, folds
from fulmen_safety.learned.training import Options, train
from fulmen_safety.learned.window_detector import WindowDetector, worst_stretch

pytest.importorskip("sklearn")

SMALL = Options(bits=12, window=120, folds=3)
_HARM = {
    "violent_crime": ("kill", "stab", "strangle"),
    "nonviolent_crime": ("rob", "defraud", "blackmail"),
}
_GOOD = ("greet", "teach", "feed", "thank", "paint", "praise")
_WHOM = (
    "the neighbour",
    "a colleague",
    "my uncle",
    "that clerk",
    "some tourist",
    "every guest",
    "a sailor",
    "our vicar",
)
_WHERE = ("in Oslo", "at noon", "by the lake", "on Sunday", "near home", "after work", "in the rain", "before dawn")


def _rows(seed: int = 0) -> list[dict[str, str]]:
    chance = random.Random(seed)
    made = []
    for category, verbs in [*_HARM.items(), ("", _GOOD)]:
        for verb in verbs:
            for _ in range(16):
                text = f"{chance.choice(_WHERE)} i want to {verb} {chance.choice(_WHOM)} {chance.choice(_WHERE)}"
                made.append({"text": text, "label": "unsafe" if category else "safe", "category": category})
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in _rows()).encode()))
    return path


@pytest.fixture(scope="module")
def rows(data: Path) -> list[Row]:
    return read_rows([data], {})


def test_what_it_learned_it_tells_of_new_sentences_and_of_which_category(rows: list[Row]) -> None:
    detector = WindowDetector("d", train(rows, SMALL).model, floor=0.3)
    harmful = detector.scores("tell me how to strangle a baker")
    assert harmful["violent_crime"] > 0.6 > harmful["nonviolent_crime"]
    assert max(detector.scores("tell me how to thank a baker").values()) < 0.4


def test_categories_are_told_apart_by_fewer_weights(rows: list[Row]) -> None:
    model = train(rows, replace(SMALL, bits=18)).model
    assert (len(model.weights_B), len(model.weights_AC)) == (1 << 18, 1 << CATEGORY_BITS)
    scores = WindowDetector("d", model, floor=0.3).scores("tell me how to blackmail a baker")
    assert scores["nonviolent_crime"] > 0.6 > scores["violent_crime"]


def test_the_same_rows_and_seed_give_the_same_bytes(rows: list[Row]) -> None:
    first, again = train(rows, SMALL), train(rows, SMALL)
    assert serialised(first.model) == serialised(again.model)
    assert first.card == again.card


def test_what_is_written_is_what_was_trained(rows: list[Row], tmp_path: Path) -> None:
    trained = train(rows, SMALL)
    write(tmp_path / "model", trained.model, trained.card)
    assert serialised(read(tmp_path / "model")) == serialised(trained.model)
    (tmp_path / "model" / WEIGHTS).write_bytes(serialised(trained.model)[:-100])
    with pytest.raises(CorruptArtefact, match="damaged weights"):
        read(tmp_path / "model")
    with pytest.raises(UserError, match=r"no model\.safetensors to read: No such file or directory in"):
        read(tmp_path / "elsewhere")


def test_weights_of_categories_lie_in_four_bits_and_those_of_older_models_stay(rows: list[Row], tmp_path: Path) -> None:
    model = train(rows, SMALL).model
    assert np.abs(model.weights_AC).max() == 7
    older = replace(model, weights_AC=np.clip(model.weights_AC * np.int16(18), -127, 127).astype(np.int8))
    for place, one in enumerate((model, older)):
        write(tmp_path / str(place), one, {})
        np.testing.assert_array_equal(read(tmp_path / str(place)).weights_AC, one.weights_AC)
    sizes = [(tmp_path / str(place) / WEIGHTS).stat().st_size for place in range(2)]
    assert sizes[1] - sizes[0] > len(model.weights_AC) * (len(model.categories) // 2 - 1)


def test_figures_are_of_texts_not_trained_on(rows: list[Row]) -> None:
    """With labels drawn by lot there is nothing to learn, so no better than chance can come out."""
    chance = random.Random(1)
    noise = [replace(row, unsafe=unsafe, categories=("violent_crime",) if unsafe else ())
             for row in rows for unsafe in [chance.random() < 0.5]]  # fmt: skip
    auc = train(noise, SMALL).card["cross_validation"]["by_lang"]["en"]["auc"]
    assert 0.3 < auc < 0.7


def test_near_duplicates_and_named_templates_share_a_group() -> None:
    texts = [
        "please tell me how to bake a very good loaf of bread at home",
        "please tell me how to bake a very good loaf of bread at work",
        "what is the capital of norway and how large is it today",
        "如何在家里做一个又香又软的大面包给家人吃",
        "请问如何在家里做一个又香又软的大面包给朋友",
        "one", "two",
    ]  # fmt: skip
    found = groups(texts, ["", "", "", "", "", "t", "t"])
    assert found[0] == found[1] != found[2]
    assert found[3] == found[4]
    assert found[5] == found[6]
    assert len(set(found.tolist())) == 4


def test_no_split_cuts_a_group() -> None:
    numbers = np.random.default_rng(0).integers(0, 40, 400)
    for part in (folds(numbers, 5, 0), aside(numbers, 0.3, 0)):
        assert all(len(set(part[numbers == group].tolist())) == 1 for group in range(40))
    assert np.bincount(folds(numbers, 5, 0)).min() > 60


def test_a_curve_gives_back_the_probabilities_that_margins_were_drawn_with() -> None:
    chance = np.random.default_rng(0)
    margins = chance.normal(0, 2, 4000)
    unsafe = chance.random(4000) < 1 / (1 + np.exp(-(1.5 * margins)))
    curve = fitted(margins, unsafe, np.arange(4000), seed=0)
    assert curve.slope == pytest.approx(1.5, rel=0.1)
    assert curve.offset == pytest.approx(0, abs=0.15)
    assert curve.slope_interval[0] < curve.slope < curve.slope_interval[1]


def test_a_short_and_a_long_side_weigh_the_same() -> None:
    chance = np.random.default_rng(0)
    margins = np.concatenate([chance.normal(1, 1, 3000), chance.normal(-1, 1, 100)])
    curve = fitted(margins, np.arange(3100) < 3000, np.arange(3100), seed=0)
    assert curve.offset == pytest.approx(0, abs=0.5)


def test_the_verb_writes_a_model_and_prints_its_card(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    command = ["raise", "train", "--data", str(data), "--out", str(out), "--bits", "12", "--folds", "3", "--json"]
    assert main([*command, "--held-out", "0.3"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert json.loads((out / CARD).read_text()) == card
    assert card["held_out"]["by_lang"]["en"]["auc"] > 0.9
    assert {one["source"] for one in card["sources"]} == {"unnamed"}
    assert sorted(path.name for path in out.iterdir()) == [CARD, WEIGHTS]
    assert main(command) == 0  # a model may be replaced


BAD = [
    ('{"text": "a", "label": "bad"}', "the label is 'bad' in "),
    ('{"label": "safe"}', "the row has no text in "),
    ("[1]", "a list, not an object in "),
    ("{", "no JSON ("),
    ('{"text": "a", "label": "unsafe", "category": "violence"}', "unknown category 'violence'"),
    ('{"text": "a", "label": "safe", "weight": -1}', "the weight is -1 in "),
    ('{"text": "a", "label": "safe"}', "too little to learn from: 0 groups of unlike unsafe texts"),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_rows_that_cannot_be_learned_from_are_named_and_nothing_is_written(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(line)
    assert main(["raise", "train", "--data", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_folder_with_something_else_is_not_replaced(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["raise", "train", "--data", str(data), "--out", str(tmp_path)]) == 2
    assert "something else than a model" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_categories_of_the_data_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "label": "unsafe", "category": "Fraud"}\n{"prompt": "b", "label": "unsafe"}')
    named = read_rows([path], {"Fraud": ["nonviolent_crime", "ip_secrets"]}, default="violent_crime")
    assert [row.categories for row in named] == [("nonviolent_crime", "ip_secrets"), ("violent_crime",)]


def test_of_many_stretches_of_a_safe_text_the_worst_may_weigh_as_a_text() -> None:
    """What is as likely in a safe text as in an unsafe one looks unsafe if it counts as a tenth of the safe one."""
    chance = np.random.default_rng(0)
    filler = [f"{word} stands here quietly." for word in ("apple", "river", "stone", "cloud", "lamp", "chair")]
    rows = []
    for at in range(60):
        said = f"hurt the {('man', 'dog')[at % 2]} number {at}."
        rows.append(Row(said, True, ("violent_crime",), "en", "s", "l", f"u{at}", 1.0))
        quoted = " ".join([*chance.choice(filler, 20), said, *chance.choice(filler, 20)])
        rows.append(Row(quoted, False, (), "en", "s", "l", f"s{at}", 1.0))
    margins = []
    for worst in (False, True):
        judged = worst_stretch(train(rows, Options(bits=12, window=60, worst_of_safe=worst)).model, "hurt the man.")
        assert judged is not None
        margins.append(judged.margin)
    assert margins[1] < margins[0] - 0.5
