"""What LoRA adapters cost: steps whose sequences have some beside the same steps without, in one run and in turns.

    python bench/adapters.py --json > adapters.json       # shape A, rank 16 on every projection, bfloat16 and int8
    python bench/adapters.py --shape S --rounds 20        # the small shape

Cells: a prefill chunk of 512 tokens of one sequence; a decode step of 32 sequences over 4 adapters, and over one; a
decode step of one sequence. A ratio is the fastest step with over the fastest without. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference.shapes import SHAPES, Shape
from safetensors.numpy import save_file

from fulmen_backend_cpu.native_runner import NativeRunner
from fulmen_core.adapters.projections import projection_places
from fulmen_core.backend import Quantization
from fulmen_core.formats.huggingface.config_import import import_config
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import load_config
from fulmen_core.model.transformer import Transformer
from fulmen_core.runner import EngineLimits, SequenceStep

ADAPTERS, CHUNK, BATCH = 4, 512, 32


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="A")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9, help="of each cell (%(default)s)")
    parser.add_argument("--context", type=int, default=256, help="tokens before a decode step (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fulmen-bench-adapters")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)

    model = random_model(SHAPES[args.shape], args.work / args.shape)
    random = np.random.default_rng(0)
    folders = [
        random_adapter(load_config(model), args.work / f"{args.shape}-{args.rank}-{i}", args.rank, random)
        for i in range(ADAPTERS)
    ]
    cells: dict[str, Any] = {"shape": args.shape, "rank": args.rank, "threads": args.threads}
    quantizations: tuple[Quantization | None, ...] = (None, "int8")
    for quantize in quantizations:
        limits = EngineLimits(
            BATCH, max(CHUNK, args.context + 64), CHUNK, args.threads, adapters=ADAPTERS, adapter_rank=args.rank
        )
        runner = NativeRunner(model, limits, "bfloat16", quantize=quantize)
        for folder in folders:
            runner.load_adapter(folder)
        cells[f"{quantize or 'bf16'} adapter bytes"] = runner.adapter_bytes() // ADAPTERS
        for name, steps in batches(args.context, SHAPES[args.shape].vocab_size, random).items():
            seconds, ratio = compare(runner, steps, args.rounds)
            cells[f"{quantize or 'bf16'} {name}, ms without"] = round(1e3 * seconds, 3)
            cells[f"{quantize or 'bf16'} {name}, ratio"] = round(ratio, 4)
        runner.close()
    for name, value in cells.items():
        print(f"{name} = {value}", file=sys.stderr)
    if args.json:
        print(json.dumps(cells))
    return 0


def batches(context: int, vocabulary: int, random: np.random.Generator) -> dict[str, list[tuple[SequenceStep, int]]]:
    """What is measured: each sequence's share of a step, and the adapter that it may have."""
    chunk = random.integers(0, vocabulary, CHUNK).tolist()
    return {
        "prefill 512": [(SequenceStep(0, 0, chunk), 1)],
        "decode 32 over 4 adapters": [(SequenceStep(i, context, [i]), 1 + i % ADAPTERS) for i in range(BATCH)],
        "decode 32 over 1 adapter": [(SequenceStep(i, context, [i]), 1) for i in range(BATCH)],
        "decode 1": [(SequenceStep(0, context, [7]), 1)],
    }


def compare(runner: NativeRunner, steps: list[tuple[SequenceStep, int]], rounds: int) -> tuple[float, float]:
    """Seconds of the fastest step without adapters, and of the fastest with them relative to that."""
    plain = [step for step, _ in steps]
    adapted = [SequenceStep(s.slot, s.start, s.token_ids, adapter=adapter) for s, adapter in steps]
    times: dict[int, list[float]] = {0: [], 1: []}
    repeats = 1 if len(plain[0].token_ids) > 1 else 5
    for _ in range(rounds):
        for which, batch in enumerate((plain, adapted)):
            begun = time.perf_counter()
            for _ in range(repeats):
                runner.step(batch)
            times[which].append((time.perf_counter() - begun) / repeats)
    return min(times[0]), min(times[1]) / min(times[0])


def random_model(shape: Shape, folder: Path) -> Path:
    """A Fulmen model directory of `shape` with random weights in bfloat16, made once."""
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _, config = import_config({"model_type": "afmoe", **shape.config()}, shape.name)
        torch.manual_seed(0)
        save_model(Transformer(config).to(torch.bfloat16), folder)
    return folder


def random_adapter(config: ModelConfig, folder: Path, rank: int, random: np.random.Generator) -> Path:
    """A PEFT folder with an adapter of `rank` on every projection of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module, place in projection_places(config).items():
        for half, size in (("A", (rank, place.inputs)), ("B", (place.outputs, rank))):
            values = 0.02 * random.standard_normal(size, np.float32)
            tensors[f"base_model.model.{module}.lora_{half}.weight"] = values
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": rank}))
    return folder


if __name__ == "__main__":
    sys.exit(main())
