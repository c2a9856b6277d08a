"""Every operator of a training step and of a serving step takes what it is given on a GPU: shapes, dtypes, devices.

No kernel runs: see `fake_cuda`. What a kernel computes is said elsewhere, and by the tests that need a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import flex_attention as flex_module

from fulmen_backend_cuda import training_attention
from fulmen_backend_cuda.experts import make_mixes
from fulmen_backend_cuda.forward import Forward
from fulmen_backend_cuda.paged_attention import PagedAttention, chunks_by_flash, decode_by_torch
from fulmen_backend_cuda.paged_cache import PagedCache
from fulmen_backend_cuda.step_plan import PlacedPlan, StepPlanner, with_chunks
from fulmen_backend_cuda.support import Support, support_of
from fulmen_backend_cuda.training import CudaTrainProgram
from fulmen_core.backend import TrainPlan
from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.transformer import Transformer
from fulmen_core.paged_steps import paged_layout, pages_of
from fulmen_core.runner import EngineLimits, SequenceStep

from .fake_cuda import DEVICE, autocast, fake_cuda, fake_model

HOPPER, AMPERE = support_of((9, 0), 132), support_of((8, 0), 108)
PAGE = 64


def config(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 64,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "layer_pattern": "SSSF",
        "sliding_window": 100,
        "intermediate_size": 64,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "num_shared_experts": 1,
        "router_bias": True,
        "balance": BalanceConfig(expert_groups=2, partitions=2),
    }
    return ModelConfig.model_validate(values | changes)


@pytest.fixture
def uncompiled_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention's operator without the compiler around it, which would want a GPU."""
    monkeypatch.setattr(flex_module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(training_attention, "_compiled_flex", lambda: flex_module.flex_attention)


def run(program: CudaTrainProgram, device: str, recompute: str, *, documents: bool) -> torch.Tensor:
    tokens_BT, segments_BT = (torch.empty(2, 300, dtype=torch.int64, device=device) for _ in range(2))
    output = program.model(tokens_BT, segments_BT=segments_BT if documents else None, recompute=recompute)
    hidden_BTD: torch.Tensor = output.hidden_BTD
    assert hidden_BTD.device.type == device
    assert hidden_BTD.shape == (2, 300, 64)
    return hidden_BTD


@pytest.mark.parametrize("experts", ["auto", "dense", "fp8"])
def test_a_forward_pass_of_training_runs_under_the_gpus_autocast(experts: Any) -> None:
    """Over whole rows without windows: fakes of FlexAttention's operator ask for CUDA themselves."""
    with fake_cuda(), torch.no_grad(), autocast():
        program = CudaTrainProgram(fake_model(config(sliding_window=400)), TrainPlan(experts=experts), DEVICE, HOPPER)
        hidden_BTD = run(program, "cuda", "none", documents=False)
    assert (hidden_BTD.device.type, hidden_BTD.dtype) == ("cuda", torch.float32)  # the stream stays wide


@pytest.mark.usefixtures("uncompiled_flex")
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("recompute", ["none", "experts", "blocks"])
@pytest.mark.parametrize("experts", ["auto", "dense", "fp8"])
def test_a_backward_pass_with_the_gpus_operators_gives_every_weight_its_gradient(
    experts: Any, recompute: str, documents: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, which takes the same operators: autograd asks a GPU's device for its streams."""
    monkeypatch.setattr(flex_module, "_validate_device", lambda *_: None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no meta device
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    with torch.device("meta"):
        model = Transformer(config()).to(torch.bfloat16)
    program = CudaTrainProgram(model, TrainPlan(experts=experts), torch.device("meta"), HOPPER)
    torch.autograd.backward(run(program, "meta", recompute, documents=documents).float().sum())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype is torch.bfloat16, name


def placed(plan: Any) -> PlacedPlan:
    """The plan's arrays as fake tensors on the GPU."""
    wide, narrow = plan.arrays()
    tensors = [
        [torch.empty(array.shape, dtype=dtype, device=DEVICE) for array in arrays]
        for arrays, dtype in ((wide, torch.int64), (narrow, torch.int32))
    ]
    return with_chunks(plan, plan.with_arrays(*tensors))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("support", "fp8"), [(HOPPER, False), (HOPPER, True), (AMPERE, False)])
@pytest.mark.parametrize("kind", ["mixed", "chunks", "single tokens", "padded"])
def test_a_serving_step_gives_float32_logits_on_the_gpu(
    kind: str, support: Support, fp8: bool, dtype: torch.dtype
) -> None:
    model_config = config()
    limits = EngineLimits(4, 512, 400)
    spec = CacheSpec.of(model_config)
    layout = paged_layout(spec, limits, page_tokens=PAGE, block_tokens=PAGE)
    planner = StepPlanner(spec, layout, limits)
    singles = [SequenceStep(0, 17, [5]), SequenceStep(2, 300, [6])]
    chunks = [SequenceStep(1, 0, [1] * 110), SequenceStep(3, 200, [2] * 9, wanted=3)]
    batch = {"mixed": [*chunks, *singles], "chunks": chunks}.get(kind, singles)
    pages_S = [pages_of(step, layout, limits) for step in batch]
    plan = planner.padded(batch, pages_S, 4) if kind == "padded" else planner.plan(batch, pages_S)
    with fake_cuda(), torch.no_grad():
        model = fake_model(model_config, dtype)
        mixes = make_mixes([model.block(layer.index) for layer in model.plan], support, DEVICE, fp8=fp8)
        cache = PagedCache(model_config, layout, limits, block_tokens=PAGE, dtype=dtype, device=DEVICE)
        decode: Callable[..., Any] = partial(decode_by_torch, places=PAGE)
        forward = Forward(model, mixes, cache, PagedAttention(decode, chunks_by_flash, ""), limits.max_context)
        logits_RV = forward.logits(placed(plan))
        assert (logits_RV.dtype, logits_RV.device.type) == (torch.float32, "cuda")
        assert logits_RV.shape == (len(plan.rows_R), model_config.vocab_size)
        assert cache.nbytes == (layout.pages + 1 + 5 * 6 * 2) * PAGE * spec.elements_per_token * dtype.itemsize


def test_arrays_of_a_plan_go_to_the_device_as_they_are() -> None:
    limits = EngineLimits(2, 100, 64)
    spec = CacheSpec.of(config())
    layout = paged_layout(spec, limits, page_tokens=PAGE, block_tokens=PAGE)
    plan = StepPlanner(spec, layout, limits).plan(
        [SequenceStep(0, 0, [3, 4]), SequenceStep(1, 8, [9])], [[1, 0], [2, 3]]
    )
    wide, narrow = plan.arrays()
    assert {array.dtype for array in wide} == {np.dtype(np.int64)}
    assert {array.dtype for array in narrow} == {np.dtype(np.int32)}
    assert plan.tokens_N.tolist() == [9, 3, 4]  # single tokens first
    assert plan.rows_R.tolist() == [2, 0]
