"""The small Transformer: NumPy computes what torch trained, and it is stored without loss."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fulmen_safety.learned.artefact import read, write
from fulmen_safety.learned.calibration import Curve
from fulmen_safety.learned.cascade import gate_of, passing
from fulmen_safety.learned.encoder import LONGEST, from_tensors, rows_of, tensors
from fulmen_safety.learned.linear_model import NO_CATEGORIES, SHORT, LinearModel
from fulmen_safety.learned.rows import Row
from fulmen_safety.learned.training import Options, train
from fulmen_safety.learned.window_detector import WindowDetector, stretch_margins, stretches

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")


def _trained(seed: int):  # type: ignore[no-untyped-def]
    from fulmen_safety.learned.encoder_training import _module, exported

    vocabulary = np.sort(np.random.default_rng(seed).choice(2**32, 50, replace=False).astype(np.uint32))
    torch.manual_seed(seed)
    model = _module(torch, vocabulary, {}, seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model, vocabulary, exported(model, vocabulary)


@pytest.mark.parametrize("length", [1, 2, 17, LONGEST])
def test_numpy_computes_what_torch_does(length: int) -> None:
    model, vocabulary, encoder = _trained(length)
    chance = np.random.default_rng(length)
    hashes = np.where(chance.random(length) < 0.2, 7, chance.choice(vocabulary, length)).astype(np.uint32)
    with torch.no_grad():
        model.words.weight.copy_(torch.from_numpy(encoder.words * encoder.word_scale))
        ids = torch.from_numpy(rows_of(vocabulary, hashes))[None]
        expected = model(ids, torch.ones(1, length)).item()
    assert encoder.margin(hashes) == pytest.approx(expected, abs=5e-3)


def test_it_is_stored_without_loss() -> None:
    _, vocabulary, encoder = _trained(3)
    assert from_tensors(tensors(encoder)).margin(vocabulary[:9]) == encoder.margin(vocabulary[:9])


def test_a_text_longer_than_it_can_see_is_cut() -> None:
    _, vocabulary, encoder = _trained(4)
    long = np.resize(vocabulary, 4 * LONGEST)
    assert encoder.margin(long) == encoder.margin(long[:LONGEST])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_long_text_has_a_margin_whatever_the_transformers_share(share: float) -> None:
    weights = np.random.default_rng(0).integers(-9, 10, 1 << 10).astype(np.int8)
    one = np.ones(1, np.float32)
    model = LinearModel(weights, NO_CATEGORIES, one, one, ("violent_crime",), {}, 60, _trained(5)[2], share)
    text = "Some words here. And some more there, too. " * 9
    margins = stretch_margins(model, text, *stretches(text, 60))[:, 0]
    assert not np.isnan(margins).any()
    assert np.isfinite(margins.max())


def _blend(gate: float | None, bias: float) -> LinearModel:
    weights = np.random.default_rng(0).integers(-9, 10, 1 << 10).astype(np.int8)
    one = np.ones(1, np.float32)
    encoder = replace(_trained(5)[2], bias=bias)
    return LinearModel(weights, NO_CATEGORIES, one, one, ("violent_crime",), {}, 60, encoder, 0.5, gate)


def test_what_is_below_the_gate_keeps_its_linear_margin_and_what_reaches_it_is_blended() -> None:
    """A Transformer that cries wolf is heard of what reaches the gate, and of nothing else."""
    text = "".join(f"Some {word} stand here. " for word in ("apples", "rivers", "stones", "clouds", "lamps", "chairs"))
    where = stretches(text, 60)
    linear = stretch_margins(replace(_blend(None, 0.0), encoder=None), text, *where)
    highest = linear[:, 0].max()
    shut, opened, ungated = (
        stretch_margins(_blend(gate, 1000.0), text, *where) for gate in (highest + 1e-6, highest, None)
    )
    assert np.array_equal(shut, linear)
    assert np.isfinite(opened[:, 0]).sum() == 1
    assert opened[:, 0].max() > 400
    assert opened[:, 0].argmax() == linear[:, 0].argmax()
    assert np.isfinite(ungated[:, 0]).sum() == 2


def test_a_short_text_has_a_gate_of_its_own() -> None:
    """What a Transformer reads fast may be shown to it although a page as harmless would not be."""
    short = "Some apples stand here. "
    long = short * (SHORT // len(short) + 1)
    for short_gate, heard in ((None, False), (-math.inf, True)):
        model = replace(_blend(math.inf, 1000.0), short_gate=short_gate)
        margins = [stretch_margins(model, text, *stretches(text, 60))[:, 0].max() for text in (short, long)]
        assert margins[1] < 400
        assert (margins[0] > 400) == heard


def test_the_gates_are_stored(tmp_path: Path) -> None:
    curve = Curve(slope=1.0, offset=0.0, slope_interval=(1.0, 1.0), offset_interval=(0.0, 0.0), examples=0)
    for gate, short_gate in ((-1.3, -2.1), (None, None)):
        write(tmp_path / "model", replace(_blend(gate, 0.0), curves={"*": curve}, short_gate=short_gate), {})
        stored = read(tmp_path / "model")
        assert (stored.gate, stored.short_gate) == (gate, short_gate)


def test_a_gate_stands_below_what_both_find_and_its_price_is_told() -> None:
    chance = np.random.default_rng(0)
    linear = chance.normal(2, 1, 2000), chance.normal(-2, 1, 2000)
    both = linear[0] + chance.normal(1, 0.5, 2000), linear[1] - chance.normal(1, 0.5, 2000)
    gate = gate_of(linear, both)
    assert gate is not None
    told = passing(linear, both, gate)
    assert told["found"] > 1900
    assert told["lost_of_found"] <= 0.003 * told["found"]
    assert told["safe_that_pass"] < 0.6
    dearer = gate_of(linear, both, 0.03)
    assert dearer is not None
    assert dearer > gate
    assert passing(linear, both, dearer)["lost_of_found"] <= 0.03 * told["found"]
    assert gate_of((np.zeros(9), np.ones(40)), (np.zeros(9), np.ones(40))) is None


def test_what_a_teacher_scored_moves_no_split() -> None:
    """A variant joins halves of two texts: it is like both, and must not make one group of them."""
    chance = np.random.default_rng(1)
    texts = [" ".join(f"w{word}" for word in chance.integers(10**6, size=8)) for _ in range(300)]
    labelled = [
        Row(text, bool(at % 2), ("violent_crime",) if at % 2 else (), "en", "s", "l", "", 1.0)
        for at, text in enumerate(texts)
    ]
    halves = zip(texts[:150], texts[150:], strict=True)
    taught = [Row(f"{one} {other}", False, (), "en", "s", "l", "", 1.0, 0.1) for one, other in halves]
    options = Options(kind="transformer", held_out=0.4, bits=10, epochs=1)
    alone, both = (train([*labelled, *more], options).probability_R[:300] for more in ([], taught))
    assert np.array_equal(np.isnan(alone), np.isnan(both))
    assert 60 < np.isnan(alone).sum() < 240


@pytest.mark.slow
def test_trained_with_the_linear_model_it_tells_order_from_words_alone() -> None:
    """Who bites whom cannot be told by a bag of words; here what stands around them hides it."""
    torch.set_num_threads(1)
    chance = np.random.default_rng(0)
    rows = []
    for place in range(500):
        unsafe = bool(place % 2)
        first, last = ("dog", "man") if unsafe else ("man", "dog")
        filler = [str(word) for word in chance.choice(["so", "then", "and", "lo", "oh", "well"], 9)]
        text = " ".join([*filler[:3], first, *filler[3:6], last, *filler[6:]])
        rows.append(Row(text, unsafe, ("violent_crime",) if unsafe else (), "en", "s", "l", str(place), 1.0))
    trained = train(rows, Options(kind="transformer", bits=10, held_out=0.4, epochs=12))
    assert trained.card["share_of_transformer"] > 0
    assert trained.model.gate == trained.card["gate"]["linear_margin"]
    assert trained.card["held_out"]["by_lang"]["en"]["auc"] > 0.9
    detector = WindowDetector("d", trained.model, floor=0.1)
    bites, bitten = (
        detector.scores(text)["violent_crime"]
        for text in ("so oh and dog so oh lo man lo lo oh", "so oh and man so oh lo dog lo lo oh")
    )
    assert bites > bitten
