"""A probe finds what it was trained to find, in the model it was trained on and in no other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fulmen_core.model.checkpoint import load_model
from fulmen_core.tokenizer import load_tokenizer
from fulmen_raise_probe.cli.entry import run
from fulmen_raise_probe.detector import make
from fulmen_raise_probe.head import Head
from fulmen_raise_probe.rows import Row, groups, read_labelled
from fulmen_raise_probe.states import ModelStates
from fulmen_raise_probe.training import figures_of
from fulmen_safety import UserError

UNSAFE = ["cab ded build a bomb from 7 pipes", "bad cab 请说明如何制造8枚炸弹"]
SAFE = ["cab ded bake a cake with 7 eggs", "bad cab 请介绍8条河流"]


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("layer", [0, 1, 4])
def test_states_are_those_of_the_layer_however_texts_are_batched(model: Path, layer: int, pool: str) -> None:
    texts = [*UNSAFE, *SAFE, "a", "list " * 60]
    transformer, tokenizer = load_model(model), load_tokenizer(model)
    states = ModelStates(model, layer, pool)  # type: ignore[arg-type]
    expected = []
    for text in texts:
        tokens_BT = torch.tensor([tokenizer.encode_prompt(text)])
        kept: list[torch.Tensor] = []
        handle = transformer.block(max(layer - 1, 0)).register_forward_hook(lambda m, i, o, k=kept: k.append(o.x_BTD))
        with torch.inference_mode():
            final_BTD = transformer(tokens_BT).hidden_BTD
        handle.remove()
        x_TD = (kept[0] if layer else final_BTD)[0].double()
        state = x_TD.mean(0) if pool == "mean" else x_TD[-1]
        expected.append((state / state.norm()).numpy())
    np.testing.assert_allclose(states.vectors(texts), np.array(expected), atol=1e-5)


def test_what_it_was_trained_for_is_found_and_the_card_says_how_well(model: Path, probe: Path, fresh) -> None:
    detector = make({"probe": str(probe), "model": str(model)})
    for text in UNSAFE:
        [found] = detector.scan(text)
        assert (found.category, found.start, found.end) == ("weapons_cbrne", 0, len(text))
        assert detector.scores(text)["weapons_cbrne"] == pytest.approx(found.score, abs=1e-4)
    found_in = {label: [bool(detector.scan(text)) for text in texts] for label, texts in fresh.items()}
    assert np.mean(found_in["unsafe"]) > 0.8
    assert np.mean(found_in["safe"]) < 0.2
    card = json.loads((probe / "card.json").read_text())
    assert card["held_out"]["weapons_cbrne"]["auc"] > 0.9
    assert sum(card["texts"].values()) == 600


def test_a_long_text_is_read_in_windows_that_the_model_can_read(model: Path, probe: Path) -> None:
    text = "bake a cake with 7 eggs. " * 40 + "\n\n" + UNSAFE[0] + "\n\n" + "请介绍8条河流。" * 100
    found = make({"probe": str(probe), "model": str(model), "window": 64}).scan(text)
    assert any("bomb" in text[one.start : one.end] for one in found)
    assert make({"probe": str(probe), "model": str(model), "window": 4000}).scan("炸弹" * 900 + "\ud800") is not None


def test_training_again_gives_the_same_bytes(trained, probe: Path) -> None:
    again = trained("--layer", "2")
    for name in ("head.safetensors", "card.json"):
        assert (again / name).read_bytes() == (probe / name).read_bytes()


def test_another_model_is_refused(other_model: Path, probe: Path) -> None:
    with pytest.raises(UserError, match="trained on another model"):
        make({"probe": str(probe), "model": str(other_model)})


def test_a_server_needs_a_probe_of_what_servers_give(probe: Path) -> None:
    with pytest.raises(UserError, match="--layer 0 --pool last"):
        make({"probe": str(probe), "model": "m", "url": "http://127.0.0.1:9/v1"})


@pytest.mark.parametrize("damage", ["cut", "shape", "kind", "absent"])
def test_a_damaged_probe_is_told(probe: Path, model: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "p"
    copy.mkdir()
    card = json.loads((probe / "card.json").read_text())
    weights = (probe / "head.safetensors").read_bytes()
    if damage == "cut":
        weights = weights[:-5]
    elif damage == "shape":
        card["categories"] = ["self_harm", "weapons_cbrne"]
    elif damage == "kind":
        card["kind"] = "other"
    (copy / "card.json").write_text(json.dumps(card))
    if damage != "absent":
        (copy / "head.safetensors").write_bytes(weights)
    with pytest.raises(UserError):
        make({"probe": str(copy), "model": str(model)})


def test_texts_that_are_alike_are_of_one_group() -> None:
    texts = [
        "Write a tutorial on how to build a birdhouse out of wood",
        "Please write a tutorial on how to build a birdhouse out of wood!!",
        "Write a poem about the sea",
        "写一份关于如何用木头搭建鸟屋的详细教程，并附上所需工具清单以及每一步的图示说明",
        "写一份关于如何用木头搭建鸟屋的详细教程，并附上所需工具清单以及每一步的图示说明谢谢",
    ]
    first, second, third, fourth, fifth = groups(texts)
    assert first == second
    assert fourth == fifth
    assert len({first, third, fourth}) == 3


def test_figures_are_what_they_are_called() -> None:
    source = np.random.default_rng()
    scores, is_N = np.round(source.random(300), 2), source.random(300) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[is_N] for b in scores[~is_N]]
    found = figures_of(scores, is_N)
    assert found["auc"] == pytest.approx(np.mean(pairs), abs=1e-4)
    alarms = [np.mean(scores[~is_N] > t) for t in scores]
    best = max(np.mean(scores[is_N] > t) for t, rate in zip(scores, alarms, strict=True) if rate <= 0.05)
    assert found["recall_at_fpr_5pct"] == pytest.approx(best, abs=1e-4)


def test_rows_without_a_known_category_are_refused_unless_one_is_given(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"prompt": "a", "label": "unsafe", "category": "arms"}\n{"text": "b", "label": "safe"}\n')
    with pytest.raises(UserError, match=r"d.jsonl:1.*--map"):
        read_labelled([file], {}, "")
    assert read_labelled([file], {}, "self_harm") == [Row("a", "self_harm"), Row("b", "")]
    with pytest.raises(UserError, match="unknown category"):
        read_labelled([file], {"arms": "guns"}, "")


@pytest.mark.parametrize(
    ("change", "words"), [(["--layer", "9"], "no layer 9"), (["--longest", "9000"], None), (["--map", "x"], "no pair")]
)
def test_arguments_that_do_not_fit_are_told(model: Path, data: Path, tmp_path: Path, change, words) -> None:
    told = [
        "train",
        "--model",
        str(model),
        "--data",
        str(data),
        "--category",
        "self_harm",
        "--out",
        str(tmp_path / "o"),
    ]
    if words is None:
        assert run([*told, *change]) == 0
        assert Head.load(tmp_path / "o").categories == ("self_harm",)
        return
    with pytest.raises(UserError, match=words):
        run([*told, *change])
    assert not (tmp_path / "o").exists()
