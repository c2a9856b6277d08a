"""The CPU backend's training half: what "auto" becomes, precision, compilation and the way back from it."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen_backend_cpu import plugin
from fulmen_backend_cpu.training import choose_dtype, choose_experts
from fulmen_core.backend import TrainPlan, TrainProgram
from fulmen_core.errors import CapabilityError
from fulmen_core.model.config import BalanceConfig, ModelConfig
from fulmen_core.model.experts import Experts
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry


def config(**changes: Any) -> ModelConfig:
    keys: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "layer_pattern": "SF",
        "sliding_window": 8,
        "intermediate_size": 64,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "balance": BalanceConfig(expert_groups=2, partitions=1),
    }
    return ModelConfig.model_validate(keys | changes)


def prepare(model: Transformer, **plan: Any) -> TrainProgram:
    return Registry.of(plugin).backend("cpu").prepare_training(model, TrainPlan(**plan))


def train(
    model: Transformer, program: TrainProgram, steps: range, state: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[float]]:
    """Some steps of AdamW on tokens that depend on the step; the optimizer's state and the losses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    if state is not None:
        optimizer.load_state_dict(state)
    losses = []
    for step in steps:
        tokens = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(step))
        with program.autocast():
            hidden = program.model(tokens[:, :-1]).hidden_BTD
            logits = model.logits(hidden)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return optimizer.state_dict(), losses


def equal(one: Transformer, other: Transformer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_backend_is_found_and_says_that_it_trains_and_serves_checkpoints() -> None:
    registry = Registry.of(plugin)
    capabilities = registry.backend().capabilities()
    assert capabilities.train
    assert capabilities.serve
    assert capabilities.formats == ("checkpoint",)
    assert plugin.probe().versions["torch"].startswith("2.")


def test_registering_the_backend_imports_no_torch() -> None:
    code = (
        "import sys, fulmen_backend_cpu.plugin as p; p.probe(); p.fulmen_backends(); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, "float32"),
        ({"architecture": "arm64"}, "float32"),
    ],
)
def test_bfloat16_is_chosen_where_the_processor_multiplies_it(capabilities: dict[str, Any], dtype: str) -> None:
    assert choose_dtype(capabilities)[0] == dtype


def test_what_auto_became_is_told_with_its_reason() -> None:
    choices = prepare(Transformer(config())).choices
    assert choices["dtype"] == choose_dtype(dict(torch.cpu.get_capabilities()))[0]
    assert choices["experts"] == choose_experts(config(), choices["dtype"])[0]
    assert choices["compile"] == "no"
    assert choices["dtype_reason"]
    assert choices["experts_reason"]
    asked = prepare(Transformer(config()), dtype="bfloat16", experts="dense").choices
    assert (asked["dtype"], asked["experts"], asked["dtype_reason"]) == ("bfloat16", "dense", "asked for")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_memory_that_a_step_frees_serves_the_next_one_without_page_faults() -> None:
    assert prepare(Transformer(config())).choices["allocator"] == "keeps freed memory"

    resource = pytest.importorskip("resource")

    def faults() -> int:
        before: int = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 << 20, dtype=torch.uint8)  # 4,096 pages
        after: int = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return after - before

    assert min(faults() for _ in range(8)) < 100  # the system may take pages back at any time, not every time


def test_the_choice_of_experts_reaches_the_model() -> None:
    model = Transformer(config())
    layers = [module for module in model.modules() if isinstance(module, Experts)]
    assert len(layers) == 2
    for name in ("dense", "grouped"):
        prepare(model, experts=name)
        assert {layer.implementation for layer in layers} == {name}


def test_a_precision_that_no_cpu_is_fast_in_is_refused() -> None:
    with pytest.raises(CapabilityError, match="does not train in float16: use one of auto, float32, bfloat16"):
        prepare(Transformer(config()), dtype="float16")


def test_experts_in_8_bit_floats_are_refused() -> None:
    with pytest.raises(CapabilityError, match="does not train experts in fp8: use one of auto, grouped, dense"):
        prepare(Transformer(config()), experts="fp8")


def test_under_bfloat16_products_are_rounded_and_weights_and_gradients_stay_float32() -> None:
    model = Transformer(config())
    tokens = torch.randint(64, (2, 16))
    hidden = {}
    for dtype in ("float32", "bfloat16"):
        program = prepare(model, dtype=dtype)
        with program.autocast():
            hidden[dtype] = program.model(tokens).hidden_BTD
    assert not torch.equal(hidden["float32"], hidden["bfloat16"].float())
    # The median: where two experts are nearly tied, rounding picks the other one, and that token differs by far more.
    assert (hidden["float32"] - hidden["bfloat16"].float()).abs().median() < 0.05
    hidden["bfloat16"].float().sum().backward()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in model.parameters() if parameter.grad is not None} == {torch.float32}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_twice_gives_the_same_weights_bit_for_bit(dtype: str) -> None:
    one = Transformer(config())
    other = Transformer(config())
    other.load_state_dict(one.state_dict())
    train(one, prepare(one, dtype=dtype), range(4))
    train(other, prepare(other, dtype=dtype), range(4))
    assert equal(one, other)


WITHOUT_COMPILER = """
import logging, sys, torch
sys.path.insert(0, sys.argv[1])
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import test_cpu_training as t
torch.set_num_threads(1)
model = t.Transformer(t.config())
program = t.prepare(model, compile=True)
assert program.model is model
t.train(model, program, range(2))
print(program.choices["compile"])
"""


def test_without_a_compiler_training_runs_uncompiled_and_says_so_once(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": str(tmp_path),
        "CXX": str(tmp_path / "no-compiler"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER, str(Path(__file__).parent)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("training runs uncompiled: ")] == lines[:-1][:1]
    assert lines[-1].startswith("no: ")


def test_what_cannot_be_compiled_runs_uncompiled_and_says_why() -> None:
    model = Transformer(config())
    program = prepare(model, dtype="float32", experts="grouped", compile=True)
    assert program.model is model
    assert program.choices["compile"] == "no: grouped matrix products compile in bfloat16 only"
    train(model, program, range(1))


COMPILED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import test_cpu_training as t
torch.set_num_threads(1)
print(t.compiled_training())
"""


def test_compiled_training_agrees_with_eager_and_resumes_bit_for_bit() -> None:
    # In a process of its own: torch's compiler refuses one that has imported distutils, as other libraries do.
    command = [sys.executable, "-c", COMPILED, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if (choice := done.stdout.splitlines()[-1]) != "yes":
        pytest.skip(f"this machine cannot compile: {choice}")


def compiled_training() -> str:
    """Hold compiled training to eager training and to itself, resumed. Returns whether this machine could compile."""
    plan: dict[str, Any] = {"dtype": "float32", "experts": "dense"}
    one_layer = config(num_hidden_layers=1, layer_pattern="F")
    eager, compiled, resumed = (Transformer(one_layer) for _ in range(3))
    compiled.load_state_dict(eager.state_dict())
    program = prepare(compiled, **plan, compile=True)
    if program.choices["compile"] != "yes":
        return program.choices["compile"]

    state, losses = train(compiled, program, range(2))
    _, expected = train(eager, prepare(eager, **plan), range(1))
    assert losses[0] == pytest.approx(expected[0], rel=1e-5)

    resumed.load_state_dict(compiled.state_dict())
    saved = copy.deepcopy(state)
    train(compiled, program, range(2, 4), state)
    torch.compiler.reset()  # what another process would start with
    train(resumed, prepare(resumed, **plan, compile=True), range(2, 4), saved)
    assert equal(resumed, compiled)
    return "yes"
