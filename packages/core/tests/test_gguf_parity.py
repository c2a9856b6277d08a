"""A model of transformers, written as llama.cpp's converter does and read back, computes what it computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.formats.gguf.checkpoint import read
from fulmen_core.formats.writing import write_model
from fulmen_core.model.checkpoint import load_model

from . import huggingface_models as hf
from .gguf_models import write_gguf

LLAMA3 = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
}
AFMOE = hf.CASES["afmoe"][1] | {"num_hidden_layers": 8}
CASES = {
    "llama": ("llama", {}),
    "llama, tied, another head width": ("llama", {"tie_word_embeddings": True, "head_dim": 12}),
    "llama, positions of Llama 3.1": ("llama", LLAMA3),
    "llama, linear positions": hf.CASES["llama, linear positions"],
    "mistral": ("mistral", {"sliding_window": None}),
    "mixtral": ("mixtral", {"num_local_experts": 6, "num_experts_per_tok": 2}),
    "qwen3, yarn positions": hf.CASES["qwen3, yarn positions"],
    "qwen3moe": ("qwen3_moe", hf.EXPERTS | {"head_dim": 16, "norm_topk_prob": True}),
    "olmoe": ("olmoe", hf.EXPERTS | {"intermediate_size": 16, "clip_qkv": 0.9}),
    "afmoe": ("afmoe", AFMOE),
}
#: Those whose files transformers reads itself: of Qwen3 it passes over the head width, of Qwen3-MoE over the experts'.
READ_BY_TRANSFORMERS = ("llama", "llama, tied, another head width", "mistral")


@pytest.fixture(autouse=True)
def _cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf, "CASES", {**hf.CASES, **CASES})


def tokens(seed: int) -> torch.Tensor:
    return torch.randint(0, 101, (2, 40), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def our_logits(folder: Path, tokens_BT: torch.Tensor) -> torch.Tensor:
    model = load_model(folder)
    return model.logits(model(tokens_BT).hidden_BTD)


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers(case: str, tmp_path: Path) -> None:
    seed = torch.seed() % 2**31
    original = hf.save(case, tmp_path / "hf", seed)
    checkpoint = read(write_gguf(tmp_path / "hf", tmp_path / "model.gguf"))
    write_model(checkpoint, tmp_path / "out")
    ours = our_logits(tmp_path / "out", tokens(seed))
    expected = hf.logits(original, tokens(seed))
    assert (ours - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max())), f"seed {seed}"
    assert torch.equal(ours.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize(
    ("kind", "largest"), [(Kind.Q8_0, 0.02), (Kind.Q4_1, 0.35), (Kind.F16, 1e-3), (Kind.BF16, 8e-3)]
)
def test_weights_are_those_that_the_reference_expands(kind: Kind, largest: float, tmp_path: Path) -> None:
    """Against transformers' own reading of the very same file: every weight equal to the bit."""
    import transformers

    original = hf.save("llama", tmp_path / "hf", 3)
    path = write_gguf(tmp_path / "hf", tmp_path / "model.gguf", kind=kind)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    checkpoint = read(path)
    state = reference.state_dict()
    for layer in range(4):
        prefix = f"model.layers.{layer}"
        keys = torch.cat([state[f"{prefix}.self_attn.{one}_proj.weight"] for one in "kv"])
        wide = torch.cat([state[f"{prefix}.mlp.{one}_proj.weight"] for one in ("gate", "up")])
        ours = {
            part: checkpoint.load(f"blocks.{layer}.{part}.weight").float()
            for part in ("attention.q_proj", "attention.kv_proj", "ffn.gate_up", "ffn.down")
        }
        assert torch.equal(ours["attention.q_proj"], state[f"{prefix}.self_attn.q_proj.weight"])
        assert torch.equal(ours["attention.kv_proj"], keys)
        assert torch.equal(ours["ffn.gate_up"], wide)
        assert torch.equal(ours["ffn.down"], state[f"{prefix}.mlp.down_proj.weight"])
        difference = (ours["attention.q_proj"] - original.state_dict()[f"{prefix}.self_attn.q_proj.weight"]).abs().max()
        assert 0 < difference < largest


@pytest.mark.parametrize("case", READ_BY_TRANSFORMERS)
def test_transformers_reads_the_same_file_as_the_same_model(case: str, tmp_path: Path) -> None:
    import transformers

    hf.save(case, tmp_path / "hf", 4)
    checkpoint = read(write_gguf(tmp_path / "hf", tmp_path / "model.gguf"))
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    write_model(checkpoint, tmp_path / "out")
    ours = our_logits(tmp_path / "out", tokens(4))
    assert (ours - hf.logits(reference.eval(), tokens(4))).abs().max() <= 1e-4 * max(1.0, float(ours.abs().max()))


def test_floats_keep_their_stored_precision(tmp_path: Path) -> None:
    hf.save("llama", tmp_path / "hf", 5)
    checkpoint = read(write_gguf(tmp_path / "hf", tmp_path / "model.gguf", kind=Kind.BF16))
    assert checkpoint.load("blocks.0.ffn.down.weight").dtype == torch.bfloat16
    assert checkpoint.load("norm.weight").dtype == torch.float32


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "mamba")
    writer.add_tensor("token_embd.weight", torch.zeros(4, 8).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="the architecture 'mamba' is not supported"):
        read(tmp_path / "model.gguf")


def test_a_tensor_that_the_network_has_no_place_for_is_refused_by_name(tmp_path: Path) -> None:
    hf.save("llama", tmp_path / "hf", 6)
    bias = {"blk.0.attn_q.bias": torch.zeros(32).numpy()}
    with pytest.raises(UserError, match=r"'blk\.0\.attn_q\.bias' has no place in a llama model"):
        read(write_gguf(tmp_path / "hf", tmp_path / "model.gguf", extra=bias))


def test_other_divisors_than_llama_3s_are_refused(tmp_path: Path) -> None:
    hf.save("llama", tmp_path / "hf", 7)
    odd = {"rope_freqs.weight": torch.tensor([1.0, 2.0, 3.0, 4.0]).numpy()}
    with pytest.raises(UserError, match=r"rope_freqs\.weight"):
        read(write_gguf(tmp_path / "hf", tmp_path / "model.gguf", extra=odd))


def test_metadata_that_do_not_fit_the_tensors_are_refused(tmp_path: Path) -> None:
    hf.save("llama", tmp_path / "hf", 8)
    path = write_gguf(tmp_path / "hf", tmp_path / "model.gguf")
    data = path.read_bytes()
    key = b"llama.feed_forward_length" + (4).to_bytes(4, "little")
    place = data.index(key) + len(key)
    path.write_bytes(data[:place] + (49).to_bytes(4, "little") + data[place + 4 :])
    with pytest.raises(CorruptArtefact, match=r"'blk\.0\.ffn_gate\.weight' \(48, 32\)"):
        read(path)
