from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fulmen_raise_pii.tagger.decode import LONGEST_ISLAND, decode, forbidden, islands, runs, viterbi
from fulmen_raise_pii.tagger.emissions import Emissions
from fulmen_raise_pii.tagger.training.perceptron import Weights, train
from fulmen_raise_pii.tagger.training.sentences import (
    KINDS,
    filled,
    is_bare,
    labelled,
    parted,
    read_sentences,
    read_written,
    written_files,
)
from fulmen_raise_pii.tagger.weights import Tagger, save
from fulmen_safety import UserError

RNG = np.random.default_rng(5)


def sentences(count: int, seed: int) -> list[tuple[list[str], list[int]]]:
    rng = random.Random(seed)
    slots = {
        "person": lambda: ("person", rng.choice(["Ada", "Alan", "Grace Hopper", "Kurt Gödel"])),
        "city": lambda: ("location", rng.choice(["Paris", "Oslo", "New York"])),
    }
    templates = [
        "My name is {{person}}",
        "{{person}} lives in {{city}}.",
        "We flew to {{city}} with {{person}}",
        "It rains",
    ]
    made = [filled(rng.choice(templates), "", slots, rng) for _ in range(count)]
    return [block for one in made for block in labelled(one)]


def weights(seed: int = 1) -> Weights:
    settings = {"labels": 2 * len(KINDS) + 1, "rows": 1 << 12, "epochs": 4, "hide": 0.1, "cost": 20, "seed": seed}
    return train(sentences(200, 0), {}, **settings)


def test_the_same_data_and_seed_give_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        made = weights()
        tagger = Tagger(made.features, made.moves, {7: 1, 3: 2}, KINDS, (0.5,) * len(KINDS), 50)
        save(tagger, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert not np.array_equal(weights(2).features, weights(1).features)


def test_what_was_trained_is_told_apart_in_new_sentences() -> None:
    made = weights()
    emissions = Emissions(made.features, {})
    right = wrong = 0
    for words, gold in sentences(60, 9):
        found = set(decode(emissions.scores(words), made.moves, 50))
        wanted = set(runs(gold))
        right, wrong = right + len(found & wanted), wrong + len(found ^ wanted)
    assert wrong < 0.05 * right


def test_viterbi_finds_the_best_of_all_sequences() -> None:
    moves = (RNG.integers(-9, 9, (5, 5)) + forbidden(5)).astype(np.int32)
    scores = RNG.integers(-9, 9, (5, 5)).astype(np.int32)

    def total(labels: tuple[int, ...]) -> int:
        steps = zip((0, *labels), (*labels, 0), strict=True)
        return sum(int(scores[t, label]) for t, label in enumerate(labels)) + sum(int(moves[step]) for step in steps)

    best = max(np.ndindex(*(5,) * 5), key=total)
    assert total(tuple(viterbi(scores, moves))) == total(best)


def test_a_continued_label_follows_only_its_own_kind() -> None:
    for _ in range(50):
        labels = viterbi(RNG.integers(-50, 50, (12, 7)).astype(np.int32), forbidden(7))
        for before, label in zip([0, *labels], labels, strict=False):
            assert label % 2 == 1 or label == 0 or before in (label, label - 1)


def test_islands_are_divided_by_three_words_that_are_plainly_outside() -> None:
    open_words = [True, False, False, True, False, False, False, True]
    scores = np.array([[0, 5] if one else [99, 0] for one in open_words], dtype=np.int32)
    assert list(islands(scores, 10)) == [(0, 4), (7, 8)]
    assert list(islands(scores[4:7], 10)) == []


def test_an_island_that_is_too_long_is_labelled_word_by_word() -> None:
    scores = np.tile(np.array([[0, 9, 1]], dtype=np.int32), (LONGEST_ISLAND + 1, 1))
    assert len(list(decode(scores, forbidden(3), 10))) == LONGEST_ISLAND + 1


def test_an_emission_does_not_depend_on_what_was_met_before() -> None:
    made = weights()
    words = ["Ada", "lives", "in", "Oslo", "."]
    fresh, used = Emissions(made.features, {}), Emissions(made.features, {}, remembered=3)
    used.scores(["Oslo", "is", "not", "Paris", ",", "Ada"])
    assert np.array_equal(fresh.scores(words), used.scores(words))
    assert np.array_equal(fresh.scores(words), fresh.scores(words))


def test_an_address_labelled_piece_by_piece_has_a_label_of_its_own() -> None:
    text = "at 12\n Baker Street, or 5 Hill Road"
    spans = [(3, 5, "address"), (7, 19, "address"), (24, 35, "address")]
    assert [kind for _, _, kind in parted(text, spans)] == ["address_part", "address_part", "address"]


def test_sentences_of_one_template_are_of_one_group(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = ("I am Ada from Oslo", "i am kurt from rome", "Else")
    path.write_text(
        "\n".join(
            f'{{"text": "{text}", "spans": [], "template_id": {n}, "source": "s"}}' for n, text in enumerate(rows)
        )
    )
    groups = [one.group for one in read_sentences(path, ["I am {{person}} from {{city}}"])]
    assert groups == ["template 0", "template 0", "bare 2"]


def test_a_template_of_slots_alone_takes_no_sentence_from_those_with_words(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    texts = ("Please send it to Ada Lovelace, 12 Hill Road, London, by noon", "Ada Lovelace, 12 Hill Road, London")
    path.write_text(
        "\n".join(
            f'{{"text": "{text}", "spans": [], "template_id": {n}, "source": "s"}}' for n, text in enumerate(texts)
        )
    )
    templates = [
        "{{person}}, {{address}}, {{city}}",
        "Please send it to {{person}}, {{address}}, {{city}}, by {{date}}",
    ]
    groups = [one.group for one in read_sentences(path, templates)]
    assert groups == ["template 1", "bare 1"]
    assert [is_bare(template) for template in templates] == [True, False]


def test_the_template_with_the_most_words_in_a_sentence_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "Call Ada now, or write to her", "spans": [], "template_id": 7, "source": "s"}')
    templates = ["Call {{person}}", "Call {{person}} now, or write to her", "{{person}}"]
    assert [one.group for one in read_sentences(path, templates)] == ["template 1"]


def test_figures_come_from_a_card_or_from_a_report_of_the_benchmark() -> None:
    pytest.importorskip("faker")
    from fulmen_raise_pii.tagger.training.train import _read_figures

    by_kind = {kind.removesuffix("_part"): {"precision": 0.75, "recall": 0.5, "f1": 0.6} for kind in KINDS}
    read = _read_figures({"fulmen": {"by_kind": by_kind, "strict": {"f1": 0.6}}})
    assert set(read["precision"]) == set(KINDS)
    assert set(read["precision"].values()) == {0.75}
    assert read["f1"]["all"] == 0.6
    assert _read_figures({"cross_validation": read}) == read


def test_written_templates_are_read_one_a_line_and_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no templates"):
        written_files(tmp_path)
    (tmp_path / "b.txt").write_text("Ask {{name}}\\nin {{city}}\n\n", "utf-8")
    (tmp_path / "a.txt").write_text("May I?\nCall {{name}}", "utf-8")
    (tmp_path / "c.md").write_text("no template", "utf-8")
    assert read_written(written_files(tmp_path)) == ["May I?", "Call {{name}}", "Ask {{name}}\nin {{city}}"]


def test_the_templates_that_were_written_use_slots_that_can_be_filled() -> None:
    pytest.importorskip("faker")
    from fulmen_raise_pii.tagger.training.name_lists import Fillers

    fillers = Fillers(3)
    written = Path(__file__).parents[3] / "bench/raise_training/sentences"
    if not written.is_dir():
        pytest.skip("the templates are in the repository, not in the package")
    found: set[str] = set()
    for template in read_written(written_files(written)):
        made = filled(template, "written", fillers.slots, fillers.rng)
        assert "{{" not in made.text
        assert all(made.text[start:end].strip() for start, end, _ in made.spans)
        found.update(kind for _, _, kind in made.spans)
    assert found == set(KINDS)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_sentences(tmp_path / "none.jsonl", [])


def test_nothing_that_fills_a_slot_depends_on_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faker")
    from faker.providers.date_time import Provider

    from fulmen_raise_pii.tagger.training.name_lists import Fillers

    def asked(value: object) -> int:
        pytest.fail("it draws from what has been until now, so that another day gives other weights")

    monkeypatch.setattr(Provider, "_parse_end_datetime", asked)
    for fill in Fillers(3).slots.values():
        for _ in range(100):
            fill()


def test_what_fills_the_slots_is_the_same_in_every_process() -> None:
    pytest.importorskip("faker")
    script = (
        "from fulmen_raise_pii.tagger.training.name_lists import Fillers; import hashlib; slots = Fillers(3).slots; "
        "print(hashlib.sha256(repr([[f() for _ in range(40)] for f in slots.values()]).encode()).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
