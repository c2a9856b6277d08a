"""Decode and prefill of the onnxruntime backend as ratios to the cpu backend, in one run, in CPU time of one thread.

    python backends/onnxruntime/bench/against_cpu.py [PRESET]     # default: small

The model has random weights. Rounds of the two backends alternate, and the median of the steps is taken, so that a busy
machine disturbs both alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

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
ROUNDS, STEPS = 4, 25


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
    return min(step_seconds(runner, prompt(runner, 0)) for _ in range(4))


def report(runners: Mapping[str, Runner]) -> None:
    """Print one line for each measurement."""
    measurements = {f"decode, batch {batch}": lambda r, b=batch: decode(r, b) for batch in (1, 8, 16)}
    for name, measure in {**measurements, f"prefill of {PROMPT}": prefill}.items():
        rounds = [{backend: measure(runner) for backend, runner in runners.items()} for _ in range(ROUNDS)][1:]
        ratio = np.median([one["cpu"] / one["onnxruntime"] for one in rounds])
        times = ", ".join(
            f"{backend} {1e3 * np.median([one[backend] for one in rounds]):.2f} ms" for backend in runners
        )
        sys.stdout.write(f"{name}: onnxruntime is {ratio:.2f}x as fast ({times})\n")


def main(preset: str) -> None:
    """Make the model, export it, and measure."""
    torch.set_num_threads(1)
    registry = Registry.discover()
    with tempfile.TemporaryDirectory() as folder:
        model, artefact = Path(folder, "model"), Path(folder, "artefact")
        model.mkdir()
        save_model(Transformer(load_preset(preset)), model)
        registry.exporter("onnx").export(model, artefact, ExportOptions())
        paths = {"cpu": model, "onnxruntime": artefact}
        report({name: registry.backend(name).load_runner(path, LIMITS) for name, path in paths.items()})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "small")
