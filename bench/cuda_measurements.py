"""What training and decoding cost on a GPU: shares of its products and of its memory's bandwidth, beside transformers.

    python bench/cuda.py                              # exits with 2 and one sentence where there is no GPU
    python bench/cuda.py --shapes 128M --json
    python bench/cuda.py --device cpu --shapes toy    # what of it runs without a GPU; its figures say nothing

Peaks are measured in the same run: the largest of some bfloat16 products, and a copy within memory. `mfu` is the share
of the first that a training step needs by arithmetic alone (nothing recomputed or masked counts); `bandwidth_share` the
share of the second that a decode step has to read: weights that some sequence uses, keys and values that it sees.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from cuda_decoding import decode_fulmen, decode_transformers
from train_peers import fulmen, transformers, transformers_missing
from train_shapes import Shape, shapes, step_flops

from fulmen_backend_cuda.backend import CudaBackend
from fulmen_backend_cuda.plugin import probe

GEMM_SIZES = (4096, 8192)
COPY_BYTES = 1 << 30
WAYS = ("auto", "auto+compile", "fp8", "fp8+compile")
PEER = {"experts": "grouped_mm", "dtype": "bfloat16", "compile": "no"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each cell, or JSON."""
    options = _options(arguments)
    if options.device == "cuda" and not (found := probe()).ok:
        print(f"bench/cuda.py measures a GPU, and {found.reason}", file=sys.stderr)
        return 2
    machine = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu: figures say nothing",
        "gemm_peak_tflops": _gemm_peak(options.device) / 1e12,
        "copy_gb_per_s": _copy_rate(options.device) / 1e9,
    }
    results = {**machine, "training": [], "decoding": []}
    out = sys.stderr if options.json else sys.stdout
    for name in options.shapes:
        shape = shapes()[name]
        for cell in _training(shape, options, machine["gemm_peak_tflops"] * 1e12):
            results["training"].append(cell)
            print(json.dumps(cell), file=out, flush=True)
        for cell in _decoding(shape, options, machine["copy_gb_per_s"] * 1e9):
            results["decoding"].append(cell)
            print(json.dumps(cell), file=out, flush=True)
    if options.json:
        print(json.dumps(results, indent=1))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=sorted(shapes()), default=["34M-fine", "128M", "1B"])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="to train: the experts, and how")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 128], help="sequences of a decode step")
    parser.add_argument("--context", type=int, default=1024, help="tokens of a sequence that decodes")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def _training(shape: Shape, options: argparse.Namespace, peak: float) -> list[dict[str, Any]]:
    """A cell for each way to compute the experts, with the ratio to transformers measured in turns with it."""
    backend = CudaBackend(options.device)
    reason = "left out" if options.no_transformers else transformers_missing()
    flops = step_flops(shape.config, shape.rows, shape.tokens)
    cells = []
    for way in options.ways:
        experts, _, compiled = way.partition("+")
        if experts == "fp8" and "fp8" not in backend.capabilities().train_quantizations:
            continue
        ours = fulmen(
            shape.config,
            shape.rows,
            shape.tokens,
            experts=experts,  # type: ignore[arg-type]
            compile_model=bool(compiled),
            backend=backend,
        )
        peer = (
            transformers(shape.config, shape.rows, shape.tokens, PEER, options.device).step if reason is None else None
        )
        seconds, other = _in_turns(ours.step, peer, options)
        cells.append(
            {
                "shape": shape.name,
                "way": way,
                "tokens_per_s": shape.step_tokens / seconds,
                "mfu": flops / seconds / peak,
                "ratio_vs_transformers": other / seconds if other else None,
                "ratio_reason": reason,
                "settings": dict(ours.settings),
            }
        )
        del ours, peer
    return cells


def _decoding(shape: Shape, options: argparse.Namespace, rate: float) -> list[dict[str, Any]]:
    """A cell for each number of sequences."""
    reason = "left out" if options.no_transformers else transformers_missing()
    context = min(options.context, shape.config.max_position_embeddings - options.warmup - options.rounds - 2)
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for batch in options.batches:
            ours = decode_fulmen(shape.config, Path(folder), batch, context, CudaBackend(options.device))
            peer = decode_transformers(shape.config, batch, context, options.device) if reason is None else None
            seconds, other = _in_turns(ours.step, peer, options)
            cells.append(
                {
                    "shape": shape.name,
                    "sequences": batch,
                    "context": context,
                    "tokens_per_s": batch / seconds,
                    "bandwidth_share": ours.bytes_read / seconds / rate,
                    "ratio_vs_transformers": other / seconds if other else None,
                    "ratio_reason": reason,
                    "settings": dict(ours.settings),
                }
            )
            ours.close()
            del ours, peer
    return cells


def _in_turns(
    ours: Callable[[], object], other: Callable[[], object] | None, options: argparse.Namespace
) -> tuple[float, float | None]:
    """Median seconds of both, measured alternately after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(options.warmup + options.rounds):
        for step, taken in zip((ours, other), times, strict=True):
            if step is not None:
                seconds = _seconds(step, options.device)
                if number >= options.warmup:
                    taken.append(seconds)
    return statistics.median(times[0]), statistics.median(times[1]) if other is not None else None


def _seconds(step: Callable[[], object], device: str) -> float:
    _wait(device)
    began = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _gemm_peak(device: str) -> float:
    """Floating-point operations a second of the fastest of some bfloat16 products."""
    best = 0.0
    for size in GEMM_SIZES if device == "cuda" else (256,):
        a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
        seconds = min(_seconds(lambda a=a, b=b: a @ b, device) for _ in range(10))  # type: ignore[misc]
        best = max(best, 2 * size**3 / seconds)
    return best


def _copy_rate(device: str) -> float:
    """Bytes a second that a copy reads and writes."""
    size = COPY_BYTES if device == "cuda" else 1 << 22
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(_seconds(lambda: target.copy_(source), device) for _ in range(10))
