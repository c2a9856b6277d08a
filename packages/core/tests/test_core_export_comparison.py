"""What a comparison of an artefact with its checkpoint sees: a runner that is right, and one that is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fulmen_core.errors import CapabilityError, CorruptArtefact
from fulmen_core.export.checkpoint_reference import ask_checkpoint
from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.options import ExportOptions
from fulmen_core.export.reference import REFERENCE_FILE, Reference
from fulmen_core.export.verdict import fault
from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import CacheLayout, SequenceStep

VOCABULARY = 53


class WholePassRunner:
    """Runs the network over all tokens of a sequence at every step, so that it is right by itself; `error` is added."""

    def __init__(self, network: Transformer, reference: Reference, error: float = 0.0) -> None:
        self.network, self.error = network, error
        self.cache, self.limits = CacheSpec.of(network.config), limits_for(reference)
        self.layout, self.vocab_size = CacheLayout(self.limits.slots), VOCABULARY
        self.tokens: dict[int, list[int]] = {}

    @torch.inference_mode()
    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        assert sum(len(step.token_ids) for step in batch) <= self.limits.max_step_tokens
        rows = []
        for step in batch:
            known = self.tokens.setdefault(step.slot, [])
            assert step.start == len(known)
            known.extend(step.token_ids)
            hidden_BTD = self.network(torch.tensor([known])).hidden_BTD
            rows.append(self.network.logits(hidden_BTD[0, -1]).numpy())
        logits_RV: NDArray[np.float32] = np.stack(rows)
        logits_RV[:, 7] += self.error
        return logits_RV

    def release(self, slot: int) -> None:
        self.tokens.pop(slot, None)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network() -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=200,
        layer_pattern="SF",
        sliding_window=120,
        intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        balance=BalanceConfig(expert_groups=2, partitions=2),
        initializer_range=0.3,
    )
    return Transformer(config).eval()


@pytest.fixture(scope="module")
def reference(network: Transformer, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return ask_checkpoint(network, tmp_path_factory.mktemp("no tokenizer"))


def test_a_runner_that_is_right_is_equal(network: Transformer, reference: Reference) -> None:
    found = compare(WholePassRunner(network, reference), reference)  # type: ignore[arg-type]
    assert found["max_abs_diff"] < 1e-5
    assert found["mean_kl"] < 1e-9
    assert (found["greedy_equal"], found["top1_agreement"]) == (True, 1.0)
    assert fault(found, {}) == ""


def test_every_wrong_logit_is_seen(network: Transformer, reference: Reference) -> None:
    found = compare(WholePassRunner(network, reference, error=20.0), reference)  # type: ignore[arg-type]
    assert found["max_abs_diff"] == pytest.approx(20, abs=1e-3)
    assert found["mean_kl"] > 1
    assert not found["greedy_equal"]
    assert "logits differ by 2.0e+01, more than 1e-04" in fault(found, {})
    assert "nats, more than 0.05" in fault(found, {"quantize": "int8", "dtype": "float32"})


@pytest.mark.parametrize(("largest", "bound"), [(0.1, 1e-4), (10, 1e-4), (35, 3.5e-4)])
def test_rounding_may_be_a_share_of_large_logits(largest: float, bound: float) -> None:
    found = {"greedy_equal": True, "max_abs_logit": largest}
    assert fault(found | {"max_abs_diff": 0.99 * bound}, {}) == ""
    assert "logits differ" in fault(found | {"max_abs_diff": 1.01 * bound}, {})
    assert "logits differ by nan" in fault(found | {"max_abs_diff": float("nan")}, {})


def test_a_sequence_leaves_the_window(reference: Reference) -> None:
    assert reference.lengths[0] == 150
    assert reference.positions_P2[reference.positions_P2[:, 0] == 0, 1].max() == 149


def test_what_a_checkpoint_answered_is_kept_whole(reference: Reference, tmp_path: Path) -> None:
    reference.save(tmp_path)
    again = Reference.load(tmp_path)
    assert again.sequences() == reference.sequences()
    np.testing.assert_array_equal(again.logits_PV, reference.logits_PV)
    whole = (tmp_path / REFERENCE_FILE).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no archive"):
        (tmp_path / REFERENCE_FILE).write_bytes(damaged)
        with pytest.raises(CorruptArtefact, match="no reference to be compared with"):
            Reference.load(tmp_path)


def test_tokens_that_hang_on_rounding_are_set_aside(network: Transformer, reference: Reference) -> None:
    tossed = replace(reference, margin_GA=np.full_like(reference.margin_GA, -1))
    found = compare(WholePassRunner(network, reference, error=20.0), tossed)  # type: ignore[arg-type]
    assert found["greedy_equal"]
    assert (found["greedy_tokens"], found["set_aside"]) == (0, reference.answers_GA.size)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (ExportOptions(dtype="bfloat16"), "writes no bfloat16: choose --dtype float32 or float16"),
        (ExportOptions(quantize="int4"), "does not quantise to int4: choose --quantize int8"),
        (ExportOptions(max_sequences=3), "--max-sequences means nothing to the exporter some: leave it out"),
        (ExportOptions(compute_capabilities=("8.9",)), "--compute-capability means nothing to the exporter some"),
    ],
)
def test_an_option_that_is_not_honoured_is_refused_by_name(options: ExportOptions, sentence: str) -> None:
    dtypes: tuple[Literal["float32", "float16"], ...] = ("float32", "float16")
    with pytest.raises(CapabilityError, match=sentence.replace("(", r"\(")):
        options.check("some", dtypes=dtypes, quantizations=("int8",), honours=("max_context",))
    ExportOptions(dtype="float16", quantize="int8", max_context=5).check(
        "some", dtypes=dtypes, quantizations=("int8",), honours=("max_context",)
    )
