"""A model of every open family, made by transformers with random weights, is the same model in Fulmen, and back."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fulmen_core.export.options import ExportOptions
from fulmen_core.formats.huggingface import read
from fulmen_core.formats.huggingface.exporter import HuggingFaceExporter
from fulmen_core.formats.huggingface.writer import write_folder
from fulmen_core.formats.writing import write_model
from fulmen_core.model.checkpoint import load_model, load_tensors
from fulmen_core.model.router import Router
from fulmen_core.model.transformer import Transformer

from . import huggingface_models as hf

transformers = pytest.importorskip("transformers")

TOKENS = 48  # several windows


@dataclass
class Converted:
    """One case: the model of transformers and its folder, and the Fulmen folder made from that."""

    case: str
    seed: int
    theirs: nn.Module
    original: Path
    model: Path


@pytest.fixture(scope="module", params=hf.CASES)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    seed = secrets.randbelow(2**31)
    root = tmp_path_factory.mktemp("family")
    theirs = hf.save(request.param, root / "original", seed)
    write_model(read(root / "original"), root / "model")
    return Converted(request.param, seed, theirs, root / "original", root / "model")


def settled_tokens(model: Transformer, rows: int, length: int) -> Tensor:
    """Random ids in whose routing no two experts are so close that rounding decides between them."""
    while True:
        tokens_BT = torch.randint(3, model.config.vocab_size, (rows, length))
        if margin(model, tokens_BT) > 1e-5:
            return tokens_BT


@torch.inference_mode()
def margin(model: Transformer, tokens_BT: Tensor) -> float:
    """The least difference between the rank of the last chosen expert and the first one that is not."""
    config = model.config
    router = model(tokens_BT).router
    if router is None or config.num_experts_per_tok == config.num_experts:
        return 1.0
    biases = [module.bias for module in model.modules() if isinstance(module, Router)]
    least = 1.0
    for logits_NE, bias_E in zip(router.logits, biases, strict=True):
        scores_NE = logits_NE.sigmoid() if config.router_score == "sigmoid" else logits_NE.softmax(-1)
        scores_NE = scores_NE if bias_E is None else scores_NE + bias_E
        best_NK = scores_NE.topk(config.num_experts_per_tok + 1).values
        least = min(least, (best_NK[:, -2] - best_NK[:, -1]).min().item())
    return least


@torch.inference_mode()
def ours(model: Transformer, tokens_BT: Tensor) -> Tensor:
    return model.logits(model(tokens_BT).hidden_BTD)


def test_logits_equal_those_of_transformers(converted: Converted) -> None:
    model = load_model(converted.model)
    tokens_BT = settled_tokens(model, 2, TOKENS)
    difference = (ours(model, tokens_BT) - hf.logits(converted.theirs, tokens_BT)).abs().max().item()
    assert difference < 1e-4, f"seed {converted.seed}"


def test_greedy_answers_equal_those_of_transformers(converted: Converted) -> None:
    model = load_model(converted.model)
    prompt_1T = settled_tokens(model, 1, 14)
    answer = converted.theirs.generate(  # type: ignore[operator]
        prompt_1T, attention_mask=torch.ones_like(prompt_1T), max_new_tokens=20, do_sample=False, eos_token_id=None
    )
    tokens_1T = prompt_1T
    while tokens_1T.shape[1] < answer.shape[1]:
        logits_V = ours(model, tokens_1T)[0, -1]
        first, second = logits_V.topk(2).values.tolist()
        if first - second < 1e-4 or margin(model, tokens_1T) < 1e-5:
            break  # rounding may decide: what comes after need not agree
        tokens_1T = torch.cat((tokens_1T, logits_V.argmax().view(1, 1)), dim=1)
    assert tokens_1T.shape[1] > 14
    assert torch.equal(tokens_1T, answer[:, : tokens_1T.shape[1]]), f"seed {converted.seed}"


def test_the_way_back_gives_every_tensor_bit_for_bit_and_transformers_misses_none(
    converted: Converted, tmp_path: Path
) -> None:
    exporter = HuggingFaceExporter()
    exporter.export(converted.model, tmp_path / "back", ExportOptions())
    before = load_file(converted.original / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)

    again, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info.values())
    tokens_BT = torch.randint(0, 101, (2, TOKENS))
    assert torch.equal(hf.logits(again.eval(), tokens_BT), hf.logits(converted.theirs, tokens_BT))

    result = exporter.check(tmp_path / "back", converted.model)
    assert result["max_abs_diff"] == 0
    assert result["greedy_equal"] is True


def test_special_tokens_and_sizes_arrive(converted: Converted) -> None:
    config = load_model(converted.model).config
    theirs = converted.theirs.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert config.max_position_embeddings == theirs.max_position_embeddings
    assert config.rms_norm_eps == theirs.rms_norm_eps
    expected = sum(parameter.numel() for parameter in converted.theirs.parameters())
    assert sum(tensor.numel() for tensor in load_tensors(converted.model).values()) == expected


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe", "olmoe", "afmoe"])
def test_experts_packed_as_transformers_holds_them_in_memory_are_read_alike(case: str, tmp_path: Path) -> None:
    hf.save(case, tmp_path / "one by one", 7)
    hf.save(case, tmp_path / "packed", 7, save_original_format=False)
    names = load_file(tmp_path / "packed" / "model.safetensors")
    assert any(name.endswith("mlp.experts.gate_up_proj") for name in names)

    first, second = read(tmp_path / "one by one"), read(tmp_path / "packed")
    write_model(first, tmp_path / "first")
    write_model(second, tmp_path / "second")
    assert first.config == second.config
    tensors = load_tensors(tmp_path / "second")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_tensors(tmp_path / "first").items())


@pytest.mark.parametrize("case", ["llama, tied, another head width", "mixtral", "afmoe"])
def test_shards_and_bfloat16_come_through_both_ways(case: str, tmp_path: Path) -> None:
    theirs = hf.save(case, tmp_path / "original", 11, torch.bfloat16, max_shard_size="20KB")
    assert len(list((tmp_path / "original").glob("*.safetensors"))) > 2
    write_model(read(tmp_path / "original"), tmp_path / "model")
    (tmp_path / "back").mkdir()
    write_folder(tmp_path / "model", tmp_path / "back", shard_bytes=20_000)
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 2

    def stored(folder: Path) -> dict[str, Tensor]:
        return {name: t for path in folder.glob("*.safetensors") for name, t in load_file(path).items()}

    before, after = stored(tmp_path / "original"), stored(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(before[name].dtype == after[name].dtype for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"

    tokens_BT = torch.randint(0, 101, (1, TOKENS))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32).eval()
    torch.testing.assert_close(hf.logits(again, tokens_BT), hf.logits(theirs.float(), tokens_BT), atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", ["llama, Llama 3 positions", "mixtral", "qwen3_moe", "olmoe", "afmoe"])
def test_a_config_in_the_spelling_of_transformers_4_means_the_same(case: str, tmp_path: Path) -> None:
    hf.save(case, tmp_path, 3)
    new = read(tmp_path).config
    path = tmp_path / "config.json"
    document = json.loads(path.read_text())
    rope = document.pop("rope_parameters")
    document["rope_theta"] = rope.pop("rope_theta")
    document["rope_scaling"] = None if rope["rope_type"] == "default" else {**rope, "type": rope["rope_type"]}
    document["torch_dtype"] = document.pop("dtype")
    if "num_local_experts" in document and case == "qwen3_moe":
        document["num_experts"] = document.pop("num_local_experts")
    path.write_text(json.dumps(document))
    assert read(tmp_path).config == new


def test_a_tied_head_that_is_stored_as_well_counts_only_if_it_differs(tmp_path: Path) -> None:
    theirs = hf.save("llama, tied, another head width", tmp_path, 3)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, weights, {"format": "pt"})
    assert read(tmp_path).config.tie_word_embeddings
    save_file(tensors | {"lm_head.weight": torch.randn_like(theirs.lm_head.weight)}, weights, {"format": "pt"})
    checkpoint = read(tmp_path)
    assert not checkpoint.config.tie_word_embeddings
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    write_model(checkpoint, tmp_path / "model")
    tokens_BT = torch.randint(0, 101, (1, TOKENS))
    torch.testing.assert_close(
        ours(load_model(tmp_path / "model"), tokens_BT), hf.logits(again, tokens_BT), atol=1e-4, rtol=0
    )
