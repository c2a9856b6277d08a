"""Decode and prefill of the openvino backend as ratios to the cpu backend, in one run, in CPU time of one thread.

    python backends/openvino/bench/against_cpu.py [MODEL] [FORM ...]     # default: small float32 bfloat16 int8

MODEL is a folder, or a preset, which gets random weights. A FORM is "float32", "bfloat16", "int8" or "int4". The first
two are compared with the cpu backend in that dtype, the others with its int8 weights. Rounds of the two backends
alternate, and the median of their ratios is taken, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fulmen_core.export.options import ExportOptions
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits, Runner, SequenceStep

LIMITS = EngineLimits(max_sequences=16, max_context=512, max_step_tokens=256, threads=1)
PROMPT = 256
ROUNDS, STEPS = 4, 20
BATCHES = (1, 8, 16)

#: For each form the options of its export, and those that both backends load with.
FORMS: Mapping[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "float32": ({}, {"dtype": "float32"}, {"dtype": "float32"}),
    "bfloat16": ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
    "int8": ({"quantize": "int8"}, {"dtype": "float32"}, {"dtype": "float32", "quantize": "int8"}),
    "int4": ({"quantize": "int4"}, {"dtype": "float32"}, {"dtype": "float32", "quantize": "int8"}),
}


def step_seconds(runner: Runner, steps: list[SequenceStep]) -> float:
    """CPU seconds of one step."""
    started = time.process_time()
    runner.step(steps)
    return time.process_time() - started


def prompt(runner: Runner, slot: int) -> list[SequenceStep]:
    """A whole random prompt for `slot`."""
    return [SequenceStep(slot, 0, np.random.default_rng(slot).integers(0, runner.vocab_size, PROMPT).tolist())]


def decode(runner: Runner, batch: int) -> float:
    """Median CPU seconds of a step that gives each of `batch` sequences its next token."""
    for slot in range(batch):
        runner.step(prompt(runner, slot))
    steps = ([SequenceStep(slot, PROMPT + i, [i]) for slot in range(batch)] for i in range(STEPS))
    return float(np.median([step_seconds(runner, step) for step in steps]))


def prefill(runner: Runner) -> float:
    """CPU seconds of a step that computes one prompt."""
    return min(step_seconds(runner, prompt(runner, 0)) for _ in range(3))


def report(form: str, runners: Mapping[str, Runner]) -> None:
    """Print one line for each measurement."""
    measurements: dict[str, Callable[[Runner], float]] = {
        f"decode, batch {batch}": lambda runner, batch=batch: decode(runner, batch)  # type: ignore[misc]
        for batch in BATCHES
    }
    for name, measure in {**measurements, f"prefill of {PROMPT}": prefill}.items():
        rounds = [{backend: measure(runner) for backend, runner in runners.items()} for _ in range(ROUNDS)][1:]
        ratio = np.median([one["cpu"] / one["openvino"] for one in rounds])
        times = ", ".join(f"{key} {1e3 * np.median([one[key] for one in rounds]):.2f} ms" for key in runners)
        sys.stdout.write(f"{form}, {name}: openvino is {ratio:.2f}x as fast ({times})\n")
        sys.stdout.flush()


def main(model: Path, forms: list[str]) -> None:
    """Export the model in each form, and measure."""
    torch.set_num_threads(1)
    registry = Registry.discover()
    with tempfile.TemporaryDirectory() as folder:
        if not model.is_dir():
            network = Transformer(load_preset(model.name))
            model = Path(folder, "model")
            model.mkdir()
            save_model(network, model)
        for form in forms:
            export, openvino, cpu = FORMS[form]
            artefact = Path(folder, form)
            registry.exporter("openvino").export(model, artefact, ExportOptions(**export))
            runners = {
                "cpu": registry.backend("cpu").load_runner(model, LIMITS, **cpu),
                "openvino": registry.backend("openvino").load_runner(artefact, LIMITS, **openvino),
            }
            report(form, runners)
            for runner in runners.values():
                runner.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "small"), sys.argv[2:] or ["float32", "bfloat16", "int8"])
