"""The presets are what they claim to be, and arithmetic without torch says the same as the network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fulmen_core.cli import main
from fulmen_core.errors import UserError
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.experts import Experts
from fulmen_core.model.kv import kv_reduction
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.model.parameters import parameter_shapes, parameters_active, parameters_total
from fulmen_core.model.presets import load_preset, preset_names
from fulmen_core.model.transformer import Transformer


@pytest.mark.parametrize("name", preset_names())
def test_arithmetic_counts_what_the_network_on_the_meta_device_has(name: str) -> None:
    config = load_preset(name)
    with torch.device("meta"):
        model = Transformer(config)
    assert parameter_shapes(config) == {key: tuple(value.shape) for key, value in model.state_dict().items()}
    total = sum(parameter.numel() for parameter in model.parameters())
    assert parameters_total(config) == total
    experts = sum(p.numel() for m in model.modules() if isinstance(m, Experts) for p in m.parameters())
    unselected = 1 - config.num_experts_per_tok / config.num_experts
    assert parameters_active(config) == total - round(experts * unselected)


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [("nano", 0.9e6, 0.45e6), ("small", 12e6, 5e6), ("lite", 3.0e9, 0.64e9), ("lightning", 125e9, 11.6e9)],
)
def test_presets_have_the_sizes_that_their_files_state(name: str, total: float, active: float) -> None:
    config = load_preset(name)
    assert parameters_total(config) == pytest.approx(total, rel=0.02)
    assert parameters_active(config) == pytest.approx(active, rel=0.02)


def test_lightning_is_the_reports_layout() -> None:
    config = load_preset("lightning")
    assert (config.vocab_size, config.max_position_embeddings) == (100_352, 65_536)
    assert config.num_hidden_layers % 8 == 0  # every full layer has the partner it shares with
    plan = LayerPlan.of(config)
    assert [layer.window for layer in plan][:4] == [4096, 4096, 4096, None]
    assert [layer.kv_source for layer in plan if layer.window is None][:4] == [3, 3, 11, 11]
    assert kv_reduction(config, 65_536) == 0.828125
    assert kv_reduction(config, 32_768) == 0.78125  # the other lengths of the spec, section 1.4
    assert kv_reduction(config, 8_192) == 0.5


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_pairs_its_full_layers_and_saves_the_reports_share_of_kv_memory(name: str) -> None:
    config = load_preset(name)
    assert config.num_hidden_layers % 8 == 0
    assert kv_reduction(config, 16 * config.sliding_window) == 0.828125


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown preset 'lightnig': did you mean 'lightning'"):
        load_preset("lightnig")


def test_model_show_prints_the_figures_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "show", "--preset", "lightning", "--context", "65536", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    config = load_preset("lightning")
    assert shown["parameters_total"] == parameters_total(config)
    assert shown["parameters_active"] == parameters_active(config)
    assert shown["kv_reduction"] == 0.828125
    assert shown["kv_bytes"] == (36 * 4096 + 6 * 65_536) * 2 * 8 * 128 * 2
    outside = config.vocab_size * config.hidden_size * 2 + config.hidden_size
    assert sum(layer["parameters"] for layer in shown["layers"]) + outside == shown["parameters_total"]


def test_model_show_reads_a_model_directory_and_draws_its_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(Transformer(load_preset("nano")), tmp_path)
    assert main(["model", "show", "--model", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "layer 3" in out
    assert "886.85K in total" in out
    assert "82.81% less" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "huge"], "unknown preset 'huge'"),
        (["--model", "/nowhere"], "there is no model folder /nowhere"),
        (["--preset", "nano", "--context", "0"], "a context of 0 tokens holds nothing"),
        (["--preset", "nano", "--context", "many"], "invalid int value: 'many'"),
        ([], "--preset --model is required"),
    ],
)
def test_model_show_says_in_a_sentence_what_is_wrong(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "show", *arguments]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.out == ""


def test_model_show_imports_no_torch() -> None:
    code = (
        "import sys; from fulmen_core.cli import main; "
        "assert main(['model', 'show', '--preset', 'lightning', '--json']) == 0; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
