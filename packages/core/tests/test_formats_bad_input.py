"""A Hugging Face folder that cannot become a model is refused in one sentence that names the thing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.export.options import ExportOptions
from fulmen_core.formats.huggingface import read
from fulmen_core.formats.huggingface.config_import import import_config
from fulmen_core.formats.writing import write_model
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer

from . import huggingface_models as hf

pytest.importorskip("transformers")

Config = dict[str, Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("originals")
    for case in ("llama", "qwen3, windows above", "qwen3_moe", "olmoe", "afmoe", "mistral, windows"):
        hf.save(case, root / case, 1)
    return root


@pytest.fixture
def folder(folders: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return shutil.copytree(folders / getattr(request, "param", "llama"), tmp_path / "original")


def edit(folder: Path, change: Callable[[Config], Any]) -> None:
    path = folder / "config.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def alter(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(folder) in sentence
    return sentence


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0, "low_freq_factor": 1.0}


@pytest.mark.parametrize(
    ("folder", "change", "words"),
    [
        ("llama", lambda c: c.update(model_type="gpt2"), "model_type 'gpt2' is not supported.*afmoe, llama"),
        ("llama", lambda c: c.pop("model_type"), "model_type None is not supported"),
        ("llama", lambda c: c.update(model_type="fulmen"), "a Fulmen model already"),
        ("llama", lambda c: c.update(hidden_act="gelu"), "hidden_act 'gelu' is not supported"),
        ("llama", lambda c: c.update(attention_bias=True), "attention_bias True is not supported"),
        ("llama", lambda c: c.update(mlp_bias=True), "mlp_bias True"),
        ("llama", lambda c: c.update(quantization_config={"bits": 4}), "quantization_config .* is not supported"),
        ("llama", lambda c: c.update(partial_rotary_factor=0.5), "partial_rotary_factor 0.5"),
        ("llama", lambda c: c.pop("hidden_size"), "key 'hidden_size' is missing"),
        ("llama", lambda c: c.update(hidden_size="wide"), "hidden_size 'wide'"),
        ("llama", lambda c: c.update(num_attention_heads=0), "num_attention_heads 0"),
        ("llama", lambda c: c.update(num_hidden_layers=10**9), "num_hidden_layers 1000000000"),
        ("llama", lambda c: c.update(num_key_value_heads=3), "num_key_value_heads 3"),
        ("llama", lambda c: c.update(head_dim=7), "head_dim 7 is odd"),
        ("llama", lambda c: c.update(rope_parameters={"rope_type": "dynamic", "factor": 2.0}), "rope_type 'dynamic'"),
        ("llama", lambda c: c.update(rope_parameters={"rope_type": "linear"}), "key 'factor' is missing"),
        ("llama", lambda c: c.update(rope_parameters=LLAMA3), "key 'high_freq_factor' is missing"),
        ("llama", lambda c: c.update(rope_parameters=YARN | {"truncate": False}), "yarn without truncation"),
        ("llama", lambda c: c.update(rope_parameters={"full_attention": YARN}), "rope_parameters .* is not supported"),
        ("llama", lambda c: c.update(rope_parameters="fast"), "rope_parameters 'fast'"),
        ("mistral, windows", lambda c: c.update(sliding_window=0), "sliding_window.*greater than 0"),
        ("qwen3, windows above", lambda c: c.update(use_sliding_window=False), "use_sliding_window must be true"),
        ("qwen3, windows above", lambda c: c.update(layer_types=["chunked_attention"] * 4), "layer_types"),
        ("qwen3_moe", lambda c: c.update(mlp_only_layers=[2]), "layer 2 is dense behind a layer of experts"),
        ("qwen3_moe", lambda c: c.update(decoder_sparse_step=2), "layer 2 is dense .*decoder_sparse_step 2"),
        ("qwen3_moe", lambda c: c.update(num_local_experts=10**9), "num_experts"),
        ("olmoe", lambda c: c.update(num_experts_per_tok=9), "num_experts_per_tok 9"),
        ("afmoe", lambda c: c.update(num_shared_experts=0), "num_shared_experts 0"),
        ("afmoe", lambda c: c.update(score_func="softmax"), "score_func 'softmax'"),
    ],
    indirect=["folder"],
)
def test_an_option_that_this_network_cannot_have_is_named(
    folder: Path, change: Callable[[Config], Any], words: str
) -> None:
    edit(folder, change)
    with pytest.raises(UserError, match=words):
        read(folder)
    assert "config.json" in refusal(folder)


SCALARS = st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats(allow_nan=False) | st.text(max_size=3)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(hf.CASES)), st.data())
def test_no_value_of_any_key_raises_anything_but_a_sentence(case: str, data: st.DataObject) -> None:
    document = hf.config_of(case)
    owner = data.draw(st.sampled_from([document, document["rope_parameters"]]))
    keys = [
        *owner,
        "mscale",
        "mscale_all_dim",
        "original_max_position_embeddings",
        "type",
        "rope_scaling",
        "num_experts",
    ]
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3)):
        owner[key] = data.draw(JSON)
    said = "config.json"
    try:
        import_config(document, "config.json")
    except UserError as error:
        said = str(error)
    assert "config.json" in said
    assert "\n" not in said


NORM, VALUES, BIAS = "model.norm.weight", "model.layers.2.self_attn.v_proj.weight", "model.layers.3.mlp.expert_bias"
EXPERT, QUERY_NORM = "model.layers.1.mlp.experts.5.up_proj.weight", "model.layers.0.self_attn.q_norm.weight"
QUERY_BIAS = "model.layers.0.self_attn.q_proj.bias"


@pytest.mark.parametrize(
    ("folder", "change", "words"),
    [
        ("llama", lambda t: t.pop(VALUES), f"'{VALUES}' is missing"),
        ("llama", lambda t: t.pop("lm_head.weight"), "'lm_head.weight' is missing"),
        ("qwen3_moe", lambda t: t.pop(EXPERT), f"'{EXPERT}' is missing"),
        ("afmoe", lambda t: t.pop(BIAS), f"'{BIAS}' is missing"),
        ("llama", lambda t: t.update({NORM: torch.ones(31)}), f"'{NORM}' is .31,. and the config says .32,."),
        ("olmoe", lambda t: t.update({QUERY_NORM: torch.ones(8)}), f"'{QUERY_NORM}' is .8,. and the config says .32,."),
        ("llama", lambda t: t.update({NORM: torch.ones(32).char()}), f"'{NORM}' has dtype I8"),
        ("llama", lambda t: t.update({NORM: torch.ones(32).to(torch.float8_e4m3fn)}), f"'{NORM}' has no known dtype"),
        ("llama", lambda t: t.update({QUERY_BIAS: torch.ones(32)}), f"the weights hold '{QUERY_BIAS}'"),
    ],
    indirect=["folder"],
)
def test_a_tensor_that_does_not_fit_is_named_with_its_file(
    folder: Path, change: Callable[[dict[str, Tensor]], Any], words: str
) -> None:
    alter(folder, change)
    with pytest.raises(CorruptArtefact, match=words):
        read(folder)
    refusal(folder)


def test_a_config_that_asks_for_more_than_there_is_takes_no_memory(folder: Path) -> None:
    edit(folder, lambda c: c.update(hidden_size=2**40, head_dim=8, vocab_size=2**40))
    with pytest.raises(CorruptArtefact, match=r"'model\.embed_tokens\.weight' is"):
        read(folder)


@pytest.mark.parametrize("kept", [0, 5, 200, 0.5, 0.9999])
def test_a_truncated_file_is_refused(folder: Path, kept: float) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if kept < 1 else int(kept)])
    with pytest.raises(CorruptArtefact, match=r"model\.safetensors is corrupt"):
        read(folder)


def test_a_header_that_lies_about_a_shape_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"shape":[101,32]', b'"shape":[102,32]', 1))
    with pytest.raises(CorruptArtefact, match="does not fill its"):
        read(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    hf.save("llama", tmp_path, 1, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refusal(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth"])
def test_a_pickle_is_refused_unread_and_the_sentence_says_why_and_what_to_do(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    sentence = refusal(folder)
    assert name in sentence
    assert "runs whatever code it holds" in sentence
    assert "safetensors" in sentence


def test_a_folder_without_weights_config_or_existence_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no weights" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert "not a JSON object" in refusal(folder)
    (folder / "config.json").unlink()
    assert "there is no model config" in refusal(folder)
    assert "there is no folder" in refusal(tmp_path / "nowhere")


def test_a_damaged_tokenizer_file_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(CorruptArtefact, match=r"tokenizer file .*tokenizer\.json is damaged"):
        read(folder)


def test_a_failure_on_the_way_leaves_the_older_model_and_no_half(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_model(read(folder), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    checkpoint = read(folder)
    alter(folder, lambda t: None)  # written anew, then cut: the file that is read is not the one that was checked
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4000])
    with pytest.raises(CorruptArtefact, match="corrupt"):
        write_model(checkpoint, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"original", "out"}


def test_nothing_but_a_fulmen_model_is_overwritten(folder: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    for out, words in (
        (thesis, "holds no Fulmen model"),
        (folder, "holds no Fulmen model"),
        (thesis / "chapter.txt", "is a file"),
    ):
        with pytest.raises(UserError, match=words):
            write_model(read(folder), out)
    assert (thesis / "chapter.txt").read_text() == "years of work"


def test_a_hugging_face_folder_that_is_loaded_as_a_model_says_how_to_import_it(folder: Path) -> None:
    with pytest.raises(UserError, match=f"'llama' is another project's.*fulmen import {folder} --out"):
        load_model(folder)


def test_weights_with_more_than_the_model_are_not_exported_without_it(tmp_path: Path) -> None:
    from fulmen_core.formats.huggingface.exporter import HuggingFaceExporter

    config = ModelConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        max_position_embeddings=16, layer_pattern="F", intermediate_size=16,
    )  # fmt: skip
    (tmp_path / "reward").mkdir()
    save_model(Transformer(config), tmp_path / "reward", {"reward_head.weight": torch.zeros(16)})
    with pytest.raises(CorruptArtefact, match="reward_head"):
        HuggingFaceExporter().export(tmp_path / "reward", tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out").exists()
