"""Decode and prefill of the onnxruntime backend beside the cpu backend and onnxruntime-genai, as ratios within one run.

    python backends/onnxruntime/bench/against_cpu.py [--model DIR | --preset NAME] [--quantize int8] [--threads N]
    python backends/onnxruntime/bench/against_cpu.py --model DIR --artefact NEW --also OLD --steps 8 --rounds 10

The cpu backend computes in float32, or with ``--quantize int8`` as it serves int8 itself: activations and caches in 8
bits. Where what is quantised is computed by native kernels, ONNX Runtime's own are beside them. ``--also`` names
artefacts of the same model that another exporter made. onnxruntime-genai, where it is installed, runs the same folder
as the onnxruntime backend, one sequence at a time. Rounds of the contenders
alternate, ratios are taken within a round, and their median is reported, so that a busy machine disturbs all alike.
With one thread CPU time is measured, with more the clock.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from fulmen_core.export.options import ExportOptions
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits, Runner, SequenceStep

OURS = "onnxruntime"


class Contender(Protocol):
    """What is measured."""

    largest_batch: int

    def prefill(self) -> None:
        """Compute a whole prompt."""
        ...

    def begin(self, batch: int) -> None:
        """Compute a prompt of each of `batch` sequences, from which `advance` goes on."""
        ...

    def advance(self) -> None:
        """Give each sequence its next token."""
        ...


class OfRunner:
    """A backend's runner."""

    def __init__(self, runner: Runner, prompt: int) -> None:
        self._runner, self._prompt, self._batch, self._length = runner, prompt, 0, 0
        self.largest_batch = runner.limits.max_sequences

    def prefill(self) -> None:
        """See `Contender`."""
        self._runner.step([self._prompt_of(0)])

    def begin(self, batch: int) -> None:
        """See `Contender`."""
        for slot in range(batch):
            self._runner.step([self._prompt_of(slot)])
        self._batch, self._length = batch, self._prompt

    def advance(self) -> None:
        """See `Contender`."""
        logits_SV = self._runner.step([SequenceStep(slot, self._length, [slot + 3]) for slot in range(self._batch)])
        logits_SV.argmax(-1)
        self._length += 1

    def _prompt_of(self, slot: int) -> SequenceStep:
        tokens = np.random.default_rng(slot).integers(0, self._runner.vocab_size, self._prompt)
        return SequenceStep(slot, 0, tokens.tolist())


class OfGenai:
    """onnxruntime-genai over the folder of an artefact."""

    largest_batch = 1

    def __init__(self, artefact: Path, prompt: int, room: int, threads: int) -> None:
        import onnxruntime_genai

        self._library: Any = onnxruntime_genai
        config = onnxruntime_genai.Config(str(artefact))
        options = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = onnxruntime_genai.Model(config)
        model = json.loads((artefact / "genai_config.json").read_text())["model"]
        self._tokens = np.random.default_rng(0).integers(0, model["vocab_size"], (1, prompt)).astype(np.int32)
        window = model["decoder"].get("sliding_window", {}).get("window_size", 0)
        self._room = max(prompt + room, window)
        self._generator: Any = None

    def prefill(self) -> None:
        """See `Contender`."""
        params = self._library.GeneratorParams(self._model)
        params.set_search_options(max_length=self._room, min_length=self._room, do_sample=False)
        self._generator = self._library.Generator(self._model, params)
        self._generator.append_tokens(self._tokens)

    def begin(self, batch: int) -> None:
        """See `Contender`."""
        del batch
        self.prefill()
        self._generator.generate_next_token()  # from the prompt's logits: nothing is computed

    def advance(self) -> None:
        """See `Contender`."""
        self._generator.generate_next_token()


def measure(contender: Contender, batch: int, steps: int, clock: Callable[[], float]) -> float:
    """Median seconds of a step of `batch` sequences; of a prompt if it is 0."""

    def seconds(act: Callable[[], None]) -> float:
        started = clock()
        act()
        return clock() - started

    if not batch:
        return min(seconds(contender.prefill) for _ in range(2))
    contender.begin(batch)
    return float(np.median([seconds(contender.advance) for _ in range(steps)]))


def report(
    contenders: Mapping[str, Contender], prompt: int, steps: int, rounds: int, clock: Callable[[], float]
) -> None:
    """Print one line for each measurement."""
    for batch in (1, 8, 16, 0):
        taking = {name: one for name, one in contenders.items() if batch <= one.largest_batch}
        times = [{name: measure(one, batch, steps, clock) for name, one in taking.items()} for _ in range(rounds + 1)][
            1:
        ]
        what = f"decode, batch {batch}" if batch else f"prefill of {prompt}"
        sys.stdout.write(f"{what}: {OURS} {1e3 * np.median([one[OURS] for one in times]):.2f} ms")
        for name in taking:
            if name != OURS:
                ratio = np.median([one[name] / one[OURS] for one in times])
                sys.stdout.write(f"; {ratio:.2f} x the speed of {name}")
        sys.stdout.write("\n")
        sys.stdout.flush()


def main() -> None:
    """Make the model if none is given, export it, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory; default: random weights of --preset")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--artefact", type=Path, help="of --model; default: exported now")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="more artefacts of --model")
    parser.add_argument("--quantize", choices=["int8", "int4"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40, help="of a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    quantize: Literal["int8", "int4"] | None = args.quantize
    torch.set_num_threads(args.threads)
    registry = Registry.discover()
    limits = EngineLimits(16, args.prompt + 2 * args.steps, args.prompt, args.threads)
    with tempfile.TemporaryDirectory() as folder:
        model, artefact = args.model, args.artefact or Path(folder, "artefact")
        if model is None:
            model = Path(folder, "model")
            model.mkdir()
            save_model(Transformer(load_preset(args.preset)), model)
        if args.artefact is None:
            registry.exporter("onnx").export(model, artefact, ExportOptions(quantize=quantize))
        cpu = registry.backend("cpu")
        peer = (
            cpu.load_runner(model, limits)
            if quantize is None
            else cpu.load_runner(model, limits, "bfloat16", quantize="int8", kv_dtype="int8")
        )
        backend = registry.backend(OURS)
        runners = {OURS: backend.load_runner(artefact, limits)}
        if runners[OURS].choices["kernels"] == "native":  # type: ignore[attr-defined] # of this backend's runner
            runners["its own kernels"] = backend.load_runner(artefact, limits, kernels="onnxruntime")
        runners |= {"cpu": peer} | {str(one): backend.load_runner(one, limits) for one in args.also}
        contenders: dict[str, Contender] = {name: OfRunner(one, args.prompt) for name, one in runners.items()}
        try:
            contenders["onnxruntime-genai"] = OfGenai(artefact, args.prompt, 2 * args.steps, args.threads)
        except ImportError:
            sys.stdout.write("onnxruntime-genai is not installed and is left out\n")
        clock = time.process_time if args.threads == 1 else time.perf_counter
        report(contenders, args.prompt, args.steps, args.rounds, clock)


if __name__ == "__main__":
    main()
