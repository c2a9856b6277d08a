"""A Fulmen model becomes the Hugging Face folder of the family that can say it, or is refused by a field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.cli import main
from fulmen_core.errors import UserError
from fulmen_core.export.options import ExportOptions
from fulmen_core.formats.huggingface import read
from fulmen_core.formats.huggingface.config_export import export_config, network
from fulmen_core.formats.huggingface.config_import import import_config
from fulmen_core.formats.writing import write_model
from fulmen_core.model.checkpoint import load_model, load_tensors, save_model
from fulmen_core.model.config import ModelConfig, RopeScaling
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry

BASE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "layer_pattern": "F",
    "kv_share": 1,
    "intermediate_size": 48,
    "qk_norm": False,
}
EXPERTS: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
AFMOE: dict[str, Any] = EXPERTS | {
    "layer_pattern": "SSF",
    "sliding_window": 5,
    "qk_norm": True,
    "rope_layers": "window",
    "attention_gate": True,
    "post_norms": True,
    "router_score": "sigmoid",
    "router_bias": True,
    "router_scale": 1.5,
    "num_shared_experts": 1,
    "num_dense_layers": 1,
    "embedding_scale": 32**0.5,
}
#: Family -> the config that only it can say.
EXPRESSIBLE: dict[str, dict[str, Any]] = {
    "llama": {"rope_scaling": RopeScaling(rope_type="linear", factor=2.0)},
    "mistral": {"layer_pattern": "S", "sliding_window": 6},
    "qwen3": {"qk_norm": True, "layer_pattern": "SF", "sliding_window": 6},
    "mixtral": EXPERTS,
    "olmoe": EXPERTS | {"qk_norm": True, "qk_norm_span": "projection", "clip_qkv": 2.0},
    "qwen3_moe": EXPERTS | {"qk_norm": True, "norm_topk_prob": False, "num_dense_layers": 2},
    "afmoe": AFMOE,
}


def saved(directory: Path, **changes: Any) -> Path:
    directory.mkdir()
    model = Transformer(ModelConfig(**BASE | changes)).to(torch.bfloat16)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 1:
            tensor.data += 0.2 * torch.randn_like(tensor)
    save_model(model, directory)
    return directory


@pytest.mark.parametrize("family", EXPRESSIBLE)
def test_a_model_comes_back_bit_for_bit_from_the_family_that_can_say_it(family: str, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", **EXPRESSIBLE[family])
    assert main(["export", "--to", "huggingface", "--model", str(model), "--out", str(tmp_path / "out")]) == 0
    checkpoint = read(tmp_path / "out")
    write_model(checkpoint, tmp_path / "again")

    assert checkpoint.family == family
    before, after = load_tensors(model), load_tensors(tmp_path / "again")
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    tokens_BT = torch.randint(0, 61, (2, 30))
    first, second = load_model(model), load_model(tmp_path / "again")
    assert torch.equal(first(tokens_BT).hidden_BTD, second(tokens_BT).hidden_BTD)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kv_share": 2}, "say kv_share"),
        ({"kv_share": 2, "layer_pattern": "SSSF", "num_hidden_layers": 8}, "say (kv_share|layer_pattern)"),
        ({"layer_pattern": "SF", "sliding_window": 6}, "say (layer_pattern|qk_norm)"),
        ({"clip_qkv": 1.0}, "say clip_qkv 1.0"),
        ({"post_norms": True}, "say post_norms True"),
        ({"embedding_scale": 2.0}, "say embedding_scale 2.0"),
        (AFMOE | {"embedding_scale": 2.0}, "say embedding_scale 2.0.*afmoe, has 5.65"),
        (AFMOE | {"router_bias": False}, "say router_bias False.*afmoe, has True"),
        (EXPERTS | {"qk_norm": True, "router_score": "sigmoid"}, "say router_score 'sigmoid'"),
        (EXPERTS | {"num_dense_layers": 1}, "say (num_dense_layers|qk_norm)"),
    ],
)
def test_what_no_family_can_say_is_refused_by_its_field(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=f"no Hugging Face family can {words}"):
        export_config(ModelConfig(**BASE | changes))


def test_yi_lightnings_own_plan_is_refused_whole_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    save_model(Transformer(load_preset("nano").model_copy(update={"num_hidden_layers": 8})), tmp_path / "model")
    code = main(["export", "--to", "huggingface", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    assert code == 2
    assert "no Hugging Face family can say" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    family = draw(st.sampled_from(sorted(EXPRESSIBLE)))
    changes = {
        "layer_pattern": st.sampled_from(["F", "S", "SF", "SSSF"]),
        "tie_word_embeddings": st.booleans(),
        "head_dim": st.sampled_from([8, 16]),
        "num_key_value_heads": st.sampled_from([1, 4]),
        "num_dense_layers": st.integers(0, 5),
        "norm_topk_prob": st.booleans(),
        "rope_layers": st.sampled_from(["all", "window"]),
        "rope_theta": st.sampled_from([10.0, 1e6]),
        "eos_token_id": st.sampled_from([None, 3, [3, 4]]),
        "rms_norm_eps": st.sampled_from([1e-6, 1e-5]),
        "router_scale": st.sampled_from([1.0, 2.0]),
        "qk_norm": st.booleans(),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(changes)), max_size=3, unique=True))
    return ModelConfig(**BASE | EXPRESSIBLE[family] | {key: draw(changes[key]) for key in chosen})


@settings(max_examples=200, deadline=None)
@given(configs())
def test_a_config_is_said_exactly_or_not_at_all(config: ModelConfig) -> None:
    try:
        family, document = export_config(config)
    except UserError:
        return
    again = import_config(json.loads(json.dumps(document)), "config.json")
    assert again[0] is family
    assert network(again[1]) == network(config)


def test_tokenizer_files_and_defaults_of_sampling_go_both_ways(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", eos_token_id=[3, 4], bos_token_id=1)
    files = {
        "tokenizer.json": '{"version": "1.0"}\r\n',
        "tokenizer_config.json": '{"bos_token": "<|é|>"}',
        "special_tokens_map.json": "{}",
        "chat_template.jinja": "{{ messages }}",
        "generation_config.json": '{"temperature": 0.6, "eos_token_id": [3, 4], "bos_token_id": 1}',
    }
    for name, content in files.items():
        (model / name).write_bytes(content.encode())
    (model / "notes.txt").write_text("not a tokenizer's")
    exporter = Registry.discover().exporter("huggingface")
    exporter.export(model, tmp_path / "out", ExportOptions())
    write_model(read(tmp_path / "out"), tmp_path / "again")
    for folder in (tmp_path / "out", tmp_path / "again"):
        for name in files.keys() - {"generation_config.json"}:
            assert (folder / name).read_bytes() == files[name].encode()
        assert json.loads((folder / "generation_config.json").read_text()) == json.loads(
            files["generation_config.json"]
        )
        assert not (folder / "notes.txt").exists()
    assert load_model(tmp_path / "again").config.eos_token_id == [3, 4]


def test_a_generation_config_knows_more_ends_than_the_config_and_wins(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", eos_token_id=3)
    Registry.discover().exporter("huggingface").export(model, tmp_path / "out", ExportOptions())
    (tmp_path / "out" / "generation_config.json").write_text('{"eos_token_id": [3, 9], "top_p": 0.9}')
    write_model(read(tmp_path / "out"), tmp_path / "again")
    assert load_model(tmp_path / "again").config.eos_token_id == [3, 9]
    (tmp_path / "out" / "generation_config.json").unlink()
    assert read(tmp_path / "out").config.eos_token_id == 3


def test_the_check_notices_a_tensor_that_was_altered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(tmp_path / "model")
    exporter = Registry.discover().exporter("huggingface")
    exporter.export(model, tmp_path / "out", ExportOptions())
    path = tmp_path / "out" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"tensor '.*' differs from the model's"):
        exporter.check(tmp_path / "out", model)
