"""A PEFT folder is read for what it is, or refused in a sentence that names what is wrong with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from fulmen_core.adapters.adapter import load_adapter
from fulmen_core.adapters.description import AdapterDescription
from fulmen_core.adapters.projections import projection_places
from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.model.config import BalanceConfig, ModelConfig

MODEL = ModelConfig(
    vocab_size=64,
    hidden_size=24,
    num_hidden_layers=8,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    layer_pattern="SSSF",
    kv_share=2,
    intermediate_size=40,
    num_dense_layers=1,
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    num_shared_experts=2,
    attention_gate=True,
    balance=BalanceConfig(expert_groups=2, partitions=2),
)
Tensors = dict[str, NDArray[Any]]
Q1 = "model.layers.1.self_attn.q_proj"


def name(module: str, half: str) -> str:
    return f"base_model.model.{module}.lora_{half}.weight"


def pair(module: str, rank: int = 2, inputs: int = 24, outputs: int = 32, dtype: type = np.float32) -> Tensors:
    random = np.random.default_rng()
    return {
        name(module, "A"): random.standard_normal((rank, inputs)).astype(dtype),
        name(module, "B"): random.standard_normal((outputs, rank)).astype(dtype),
    }


def write(folder: Path, tensors: Tensors | None = None, **config: Any) -> Path:
    """A folder with an adapter of queries of layer 1, changed as told."""
    folder.mkdir(exist_ok=True)
    save_file(pair(Q1) if tensors is None else tensors, folder / "adapter_model.safetensors")
    document = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "some/model", **config}
    (folder / "adapter_config.json").write_text(json.dumps(document))
    return folder


def test_a_description_says_what_the_adapter_is(tmp_path: Path) -> None:
    modules = [Q1, "model.layers.0.mlp.down_proj"]
    tensors = pair(modules[0]) | pair(modules[1], rank=5, inputs=40, outputs=24)
    found = AdapterDescription.inspect(write(tmp_path, tensors, rank_pattern={"down_proj": 5}))
    assert (found.base_model, found.rank, found.target_modules) == ("some/model", 5, ("down_proj", "q_proj"))
    found.check(MODEL, 5)


def test_inspecting_and_checking_import_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from fulmen_core.adapters.description import AdapterDescription;"
        "from fulmen_core.model.config import ModelConfig;"
        "config = ModelConfig.model_validate_json(sys.argv[2]);"
        "AdapterDescription.inspect(Path(sys.argv[1])).check(config, 8);"
        "assert not {'torch', 'numpy', 'safetensors'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", program, str(write(tmp_path)), MODEL.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_fingerprint_changes_when_either_file_is_replaced(tmp_path: Path) -> None:
    seen = {AdapterDescription.inspect(write(tmp_path)).fingerprint}
    assert AdapterDescription.inspect(tmp_path).fingerprint in seen
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        status = (tmp_path / file).stat()
        os.utime(tmp_path / file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        seen.add(AdapterDescription.inspect(tmp_path).fingerprint)
    write(tmp_path, lora_alpha=40)
    seen.add(AdapterDescription.inspect(tmp_path).fingerprint)
    assert len(seen) == 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 4 / 2**0.5),
        ({"r": 9, "rank_pattern": {"q_proj": 2}}, 2.0),
        ({"alpha_pattern": {r"layers\.1\..*": 3, "q_proj": 5}}, 1.5),  # the first that matches counts
        ({"alpha_pattern": {r"layers\.2\..*": 3, "k_proj": 5}}, 2.0),
        ({"lora_alpha": 0.5}, 0.25),
    ],
)
def test_arrays_are_float32_with_the_scaling_in_b(
    tmp_path: Path, config: dict[str, Any], scaling: float, dtype: type
) -> None:
    tensors = pair(Q1, dtype=dtype)
    adapter = load_adapter(write(tmp_path, tensors, **config), MODEL, 8)
    (low_rank,) = adapter.deltas.values()
    assert list(adapter.deltas) == [(1, "q")]
    assert low_rank.a_RI.dtype == low_rank.b_OR.dtype == np.float32
    np.testing.assert_array_equal(low_rank.a_RI, tensors[name(Q1, "A")].astype(np.float32))
    np.testing.assert_allclose(low_rank.b_OR, tensors[name(Q1, "B")].astype(np.float64) * scaling, rtol=1e-6)


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    tensors = {key: torch.from_numpy(value).bfloat16() for key, value in pair(Q1).items()}
    write(tmp_path, lora_alpha=2)
    save_torch_file(tensors, tmp_path / "adapter_model.safetensors")
    low_rank = load_adapter(tmp_path, MODEL, 8).deltas[1, "q"]
    np.testing.assert_array_equal(low_rank.a_RI, tensors[name(Q1, "A")].float().numpy())
    np.testing.assert_array_equal(low_rank.b_OR, tensors[name(Q1, "B")].float().numpy())


def test_every_projection_of_the_model_is_read_to_its_place(tmp_path: Path) -> None:
    places = projection_places(MODEL)
    tensors: Tensors = {}
    for module, place in places.items():
        tensors |= pair(module, 2, place.inputs, place.outputs)
    adapter = load_adapter(write(tmp_path, tensors), MODEL, 2)
    assert adapter.deltas.keys() == {(place.layer, place.projection) for place in places.values()}
    borrowed = {(7, "k"), (7, "v")}
    assert not borrowed & adapter.deltas.keys()
    for module, place in places.items():
        low_rank = adapter.deltas[place.layer, place.projection]
        np.testing.assert_array_equal(low_rank.a_RI, tensors[name(module, "A")])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is told by /proc")
def test_adapters_that_come_and_go_leave_no_memory_behind(tmp_path: Path) -> None:
    tensors: Tensors = {}
    for module, place in projection_places(MODEL).items():
        tensors |= pair(module, 2, place.inputs, place.outputs)
    write(tmp_path, tensors)

    def resident_mib(loads: int) -> float:
        for _ in range(loads):
            load_adapter(tmp_path, MODEL, 2)
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    before = resident_mib(100)
    assert resident_mib(500) - before < 1  # 500 files that are not forgotten cost three


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA' .* 'LORA' are served"),
        ({"peft_type": None}, "peft_type is None"),
        ({"use_dora": True}, "use_dora is True .*DoRA"),
        ({"lora_bias": True}, "lora_bias is True .*biases"),
        ({"bias": "lora_only"}, "bias is 'lora_only' .*biases"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"trainable_token_indices": [1]}, r"trainable_token_indices is \[1\] .*embeddings"),
        ({"target_parameters": ["gate_up_proj"]}, "target_parameters .*routed experts"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "layer_replication .*repeated layers"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens .*aLoRA"),
        ({"use_qalora": True}, "use_qalora is True .*QA-LoRA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa' .*changes the model's weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora' .*changes the model's weights"),
        ({"use_mora": True}, "use_mora is True .*not known"),
        ({"kasa_config": {"alpha": 1}}, "kasa_config .*not known"),
    ],
)
def test_what_is_more_than_lora_is_refused_by_name(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        AdapterDescription.inspect(write(tmp_path, **config))
    assert str(tmp_path / "adapter_config.json") in str(caught.value)


def test_what_matters_to_training_alone_or_is_empty_is_passed_over(tmp_path: Path) -> None:
    ignored = {
        "lora_dropout": 0.1,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "auto_mapping": {"base_model_class": "LlamaForCausalLM"},
        "peft_version": "0.21.2",
        "megatron_core": "megatron.core",
        "qalora_group_size": 16,
        "loftq_config": {},
        "init_lora_weights": "gaussian",
        "use_dora": False,
        "a_key_of_tomorrow": None,
        "another": [],
    }
    AdapterDescription.inspect(write(tmp_path, **ignored)).check(MODEL, 8)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"r": 0}, "r 0 is no rank"),
        ({"r": 2.0}, "r 2.0 is no rank"),
        ({"r": True}, "r True is no rank"),
        ({"r": 3}, "rank 2 and 2, and adapter_config.json says 3"),
        ({"rank_pattern": {"q_proj": 3}}, "says 3"),
        ({"rank_pattern": {"q_proj": "x"}}, "rank_pattern .* is no rank"),
        ({"rank_pattern": [2]}, "rank_pattern .* is no table"),
        ({"rank_pattern": {"q_(": 2}}, r"'q_\(' is no regular expression"),
        ({"lora_alpha": "4"}, "lora_alpha '4' is no number"),
        ({"lora_alpha": float("nan")}, "lora_alpha nan is no number"),
        ({"lora_alpha": 10**400}, "lora_alpha 1000"),
        ({"alpha_pattern": {"q_proj": None}}, "alpha_pattern .* is no number"),
        ({"use_rslora": 1}, "use_rslora 1 is no true or false"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path 5 is no text"),
        ({"target_modules": {"q_proj": 1}}, "target_modules .* is no list"),
        ({"target_modules": [1]}, "target_modules .* is no list"),
        ({"target_modules": "q_("}, "no regular expression"),
        ({"layers_to_transform": "1"}, "layers_to_transform '1' is no layer"),
        ({"target_modules": ["k_proj"]}, f"'{Q1}' has tensors in adapter_model.safetensors and is no target"),
        ({"target_modules": r".*\.k_proj"}, "is no target"),
        ({"target_modules": ["q_proj"], "exclude_modules": ["layers.1.self_attn.q_proj"]}, "is no target"),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0, 2]}, "is no target"),
        ({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "h"}, "is no target"),
    ],
)
def test_a_config_that_is_wrong_or_contradicts_the_tensors_is_refused(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(CorruptArtefact, match=words):
        AdapterDescription.inspect(write(tmp_path, **config))


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["o_proj", "layers.1.self_attn.q_proj"]},
        {"target_modules": [Q1]},
        {"target_modules": r".*\.[qv]_proj"},
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj"], "layers_to_transform": 1},
        {"target_modules": ["q_proj"], "layers_to_transform": [1, 3], "layers_pattern": ["h", "layers"]},
        {"target_modules": ["q_proj"], "exclude_modules": r".*layers\.2\..*"},
    ],
)
def test_targets_mean_what_they_mean_to_peft(tmp_path: Path, config: dict[str, Any]) -> None:
    description = AdapterDescription.inspect(write(tmp_path, **config))
    assert description.modules.keys() == {Q1}
    assert description.modules[Q1].scaling == 2


@pytest.mark.parametrize(
    ("tensors", "error", "words"),
    [
        ({}, CorruptArtefact, "no tensors"),
        ({name(Q1, "A"): np.zeros((2, 24), np.float32)}, CorruptArtefact, "lora_A.weight without lora_B.weight"),
        ({name(Q1, "B"): np.zeros((32, 2), np.float32)}, CorruptArtefact, "lora_B.weight without lora_A.weight"),
        (pair(Q1) | {name(Q1, "B"): np.zeros((32, 3), np.float32)}, CorruptArtefact, "rank 2 and 3"),
        (pair(Q1) | {name(Q1, "B"): np.zeros((32, 2), np.int32)}, CorruptArtefact, "dtype I32"),
        (pair(Q1) | {name(Q1, "A"): np.zeros(24, np.float32)}, CorruptArtefact, "no matrix"),
        (pair(Q1, rank=0), CorruptArtefact, "no matrix"),
        ({"model.layers.1.self_attn.q_proj.weight": np.zeros(2)}, UserError, "no part of a LoRA adapter"),
        (
            pair(Q1) | {f"base_model.model.{Q1}.lora_magnitude_vector": np.zeros(32, np.float32)},
            UserError,
            "DoRA is not served",
        ),
        (
            pair(Q1) | {f"base_model.model.{Q1}.lora_B.bias": np.zeros(32, np.float32)},
            UserError,
            "biases of adapters are not served",
        ),
        (
            {"base_model.model.model.embed_tokens.lora_embedding_A": np.zeros((2, 64), np.float32)},
            UserError,
            "embed_tokens.lora_embedding_A' .*embeddings and heads are served as they are",
        ),
        (pair("lm_head", 2, 24, 64), UserError, "lm_head.lora_A.weight' .*heads are served as they are"),
        (
            pair(Q1) | {"base_model.model.lm_head.modules_to_save.weight": np.zeros((64, 24), np.float32)},
            UserError,
            "modules that were trained whole are not served",
        ),
    ],
)
def test_tensors_that_are_no_whole_lora_are_refused(
    tmp_path: Path, tensors: Tensors, error: type[UserError], words: str
) -> None:
    with pytest.raises(error, match=words):
        AdapterDescription.inspect(write(tmp_path, tensors))


@pytest.mark.parametrize(
    ("module", "sizes", "words"),
    [
        ("model.layers.7.self_attn.k_proj", (24, 16), "layer 7 reads the keys and values of layer 3"),
        ("model.layers.7.self_attn.v_proj", (24, 16), "layer 7 reads the keys and values of layer 3"),
        ("model.layers.8.self_attn.q_proj", (24, 32), "the model has 8 layers"),
        ("model.layers.99999999999.self_attn.q_proj", (24, 32), "the model has 8 layers"),
        ("model.layers.1.mlp.experts.3.up_proj", (24, 16), "routed experts are served as they are"),
        ("model.layers.1.mlp.experts", (24, 16), "routed experts are served as they are"),
        ("model.layers.1.mlp.experts.base_layer", (24, 16), "routed experts are served as they are"),
        ("model.layers.1.block_sparse_moe.experts.0.w1", (24, 16), "routed experts are served as they are"),
        ("model.layers.1.mlp.router.gate", (24, 8), "routers are served as they are"),
        ("model.layers.1.mlp.gate", (24, 8), "routers are served as they are"),
        ("model.layers.1.block_sparse_moe.gate", (24, 8), "routers are served as they are"),
        ("model.layers.1.mlp.up_proj", (24, 40), "layer 1 has routed experts and shared ones"),
        ("model.layers.0.mlp.shared_experts.up_proj", (24, 32), "no such module"),
        ("model.layers.1.self_attn.qkv_proj", (24, 64), "no such module"),
        ("model.layers.x.self_attn.q_proj", (24, 32), "no such module"),
        ("transformer.h.1.attn.c_attn", (24, 64), "no such module"),
        (Q1, (32, 32), "maps 32 to 32 elements and the model's 24 to 32"),
        (Q1, (24, 24), "maps 24 to 24 elements and the model's 24 to 32"),
    ],
)
def test_modules_that_the_model_has_no_place_for_are_refused_by_name(
    tmp_path: Path, module: str, sizes: tuple[int, int], words: str
) -> None:
    description = AdapterDescription.inspect(write(tmp_path, pair(module, 2, *sizes)))
    with pytest.raises(UserError, match=words) as caught:
        description.check(MODEL, 8)
    assert f"'{module}'" in str(caught.value)


def test_a_rank_above_the_limit_is_refused(tmp_path: Path) -> None:
    description = AdapterDescription.inspect(write(tmp_path))
    description.check(MODEL, 2)
    with pytest.raises(UserError, match=f"'{Q1}' has rank 2, more than 1"):
        description.check(MODEL, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("half", ["A", "B"])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, half: str, value: float) -> None:
    tensors = pair(Q1)
    tensors[name(Q1, half)][1, 1] = value
    with pytest.raises(CorruptArtefact, match=f"'{Q1}' has values that are not finite"):
        load_adapter(write(tmp_path, tensors), MODEL, 8)


def test_a_scaling_that_overflows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtefact, match="not finite"):
        load_adapter(write(tmp_path, lora_alpha=1e300), MODEL, 8)


def _without(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def _pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def _truncate(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (_without("adapter_config.json"), UserError, "holds no adapter: expected adapter_config.json"),
        (_without("adapter_model.safetensors"), UserError, "holds no adapter: expected adapter_config.json"),
        (_pickle, UserError, "adapter_model.bin is a pickle"),
        (_truncate, CorruptArtefact, "adapter_model.safetensors is corrupt"),
        (lambda folder: (folder / "adapter_config.json").write_text("[1]"), CorruptArtefact, "not a JSON object"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), CorruptArtefact, "not valid JSON"),
    ],
)
def test_folders_that_are_not_whole_are_refused(
    tmp_path: Path, damage: Callable[[Path], None], error: type[UserError], words: str
) -> None:
    damage(write(tmp_path))
    with pytest.raises(error, match=words):
        AdapterDescription.inspect(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no adapter folder .*nowhere"):
        AdapterDescription.inspect(tmp_path / "nowhere")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_config_is_read_or_refused_in_a_sentence(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever stands at the keys that are read: no other exception comes out."""
    plain = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(["q_proj", ".*", "(", "layers.1", ""]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["q_proj", "(", ".*"]), inner),
        max_leaves=4,
    )
    settings_ = ["r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias", "init_lora_weights", "x"]
    names = ["target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"]
    keys = st.sampled_from([*settings_, *names, "peft_type"])
    config = data.draw(st.dictionaries(keys, plain, max_size=3))
    write(tmp_path, **config)
    refused = ""
    try:
        adapter = load_adapter(tmp_path, MODEL, 8)
    except UserError as error:
        refused = str(error)
    if refused:
        assert "\n" not in refused
        assert str(tmp_path) in refused
    else:
        assert adapter.deltas.keys() == {(1, "q")}
        assert np.isfinite(adapter.deltas[1, "q"].b_OR).all()
