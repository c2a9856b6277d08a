"""What a training step costs on this CPU, as a share of what its matrix products could do and beside transformers.

    python bench/train_step.py --threads 2                  # 12M, 34M and 128M
    python bench/train_step.py --shapes 34M-fine --json

Fulmen (fused AdamW) meets one other at a time: the dense model with the same active parameters, itself with Muon, and
transformers' Qwen3-MoE of the same dimensions in whichever of its settings was fastest before. In a round the peak of
matrix products and a step of both are measured one after the other, and ratios are taken within the round, as
processors drift; every figure is the median over rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from train_peers import TRANSFORMERS_SETTINGS, Contestant, fulmen, transformers, transformers_missing
from train_shapes import Shape, active_matrices, dense_of, shapes, step_flops

from fulmen_core.model.transformer import Transformer

PEAK_SIZES = (512, 1024, 2048)
PEAK_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table or JSON."""
    options = _options(arguments)
    _pin(options.threads)
    results = []
    for name in options.shapes:
        results.append(measure(shapes()[name], options))
        print(_row(results[-1]), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        print(json.dumps(results, indent=1))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=sorted(shapes()), default=["12M", "34M", "128M"])
    parser.add_argument("--threads", type=int, default=2, help="cores to use; the process is pinned to them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=12, help="steps of Fulmen before measuring")
    parser.add_argument("--warmup-transformers", type=int, default=2, help="the same of each setting that is tried")
    parser.add_argument(
        "--compile", action="store_true", help="measure Fulmen under torch.compile instead of its kernels"
    )
    parser.add_argument("--compile-transformers", action="store_true", help="try transformers compiled too: minutes")
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def _pin(threads: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)


def measure(shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """One object of the output; keys that need a peer which is not there are None beside a reason."""
    rows, tokens = shape.rows, shape.tokens
    began = time.perf_counter()
    ours = fulmen(shape.config, rows, tokens, compile_model=options.compile)
    ours.step()
    first_seconds = time.perf_counter() - began
    warmed(lambda: ours, options.warmup)
    memory = peak_memory(ours)
    dense = rounds(ours, warmed(lambda: fulmen(dense_of(shape), rows, tokens), options.warmup), options.rounds)
    muon = rounds(ours, warmed(lambda: fulmen(shape.config, rows, tokens, optimizer="muon"), 2), options.rounds)
    tried: dict[str, float | str] = {}
    peer: Contestant | None = None
    reason = "left out" if options.no_transformers else transformers_missing()
    if reason is None:
        peer, tried = best_transformers(shape, options)
    beside = rounds(ours, peer, options.rounds) if peer else []
    together = dense + muon + beside

    flops = step_flops(shape.config, rows, tokens)
    return {
        "shape": shape.name,
        "parameters": sum(parameter.numel() for parameter in parameters_of(shape)),
        "active_parameters": active_matrices(shape.config),
        "step_tokens": shape.step_tokens,
        "threads": options.threads,
        "tokens_per_s": shape.step_tokens / median(together, lambda r: r.ours),
        "gflops": flops / median(together, lambda r: r.ours) / 1e9,
        "gemm_peak_gflops": {name: median(together, lambda r, name=name: r.peaks[name]) for name in PEAK_DTYPES},  # type: ignore[misc]
        "share_of_gemm_peak": median(together, lambda r: flops / r.ours / 1e9 / r.peaks[ours.settings["dtype"]]),
        "ratio_vs_transformers": median(beside, lambda r: r.other / r.ours) if peer else None,
        "ratio_reason": reason,
        "transformers_tokens_per_s": shape.step_tokens / median(beside, lambda r: r.other) if peer else None,
        "transformers_settings": dict(peer.settings) if peer else None,
        "transformers_tried_tokens_per_s": tried,
        "moe_over_dense_step": median(dense, lambda r: r.ours / r.other),
        "muon_over_adamw_step": median(muon, lambda r: r.other / r.ours),
        "settings": dict(ours.settings),
        "first_step_seconds": first_seconds,
        "peak_memory_bytes": memory,
    }


def parameters_of(shape: Shape) -> list[torch.Tensor]:
    """The parameters of the shape's model, without memory."""
    with torch.device("meta"):
        return list(Transformer(shape.config).parameters())


@dataclass(frozen=True, slots=True)
class Round:
    """GFLOP/s of the best product by dtype, and seconds of a step of Fulmen and of another, one after the other."""

    peaks: dict[str, float]
    ours: float
    other: float


def rounds(ours: Contestant, other: Contestant, count: int) -> list[Round]:
    """Several rounds of both."""
    return [
        Round({name: gemm_peak(dtype) for name, dtype in PEAK_DTYPES.items()}, seconds(ours), seconds(other))
        for _ in range(count)
    ]


def median(measured: Sequence[Round], of: Callable[[Round], float]) -> float:
    """The median of a figure of each round."""
    return statistics.median(of(one) for one in measured)


def seconds(contestant: Contestant) -> float:
    """Wall seconds of one step."""
    began = time.perf_counter()
    contestant.step()
    return time.perf_counter() - began


def warmed(make: Callable[[], Contestant], steps: int) -> Contestant:
    """Made, and run until oneDNN has compiled its kernels: one for each number of rows that experts get."""
    contestant = make()
    for _ in range(steps):
        contestant.step()
    return contestant


def gemm_peak(dtype: torch.dtype) -> float:
    """GFLOP/s of the fastest of several square products."""
    best = 0.0
    for size in PEAK_SIZES:
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        torch.mm(a, b)
        for _ in range(3):
            began = time.perf_counter()
            torch.mm(a, b)
            best = max(best, 2 * size**3 / (time.perf_counter() - began) / 1e9)
    return best


def best_transformers(shape: Shape, options: argparse.Namespace) -> tuple[Contestant, dict[str, float | str]]:
    """The fastest of its settings, judged by the better of two steps, and what each gave."""
    tried: dict[str, float | str] = {}
    best: tuple[float, Contestant] | None = None
    for settings in TRANSFORMERS_SETTINGS:
        if settings["compile"] == "yes" and not options.compile_transformers:
            continue
        label = " ".join((settings["experts"], settings["dtype"], "compiled" * (settings["compile"] == "yes"))).strip()
        try:
            make = partial(transformers, shape.config, shape.rows, shape.tokens, settings)
            contestant = warmed(make, options.warmup_transformers)
            best_seconds = min(seconds(contestant) for _ in range(2))
        except Exception as error:  # what torch.compile throws has no common type
            tried[label] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        tried[label] = shape.step_tokens / best_seconds
        if best is None or best_seconds < best[0]:
            best = best_seconds, contestant
        del contestant
        gc.collect()  # a model that lost must not weigh on the next
    if best is None:
        raise SystemExit(f"transformers ran with no setting: {tried}")
    return best[1], tried


def peak_memory(contestant: Contestant) -> int | None:
    """The most memory that the process held during a step, in bytes; None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        contestant.step()
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def _row(result: dict[str, Any]) -> str:
    ratio = result["ratio_vs_transformers"]
    beside = f"{ratio:.2f}x transformers {result['transformers_settings']}" if ratio else result["ratio_reason"]
    return (
        f"{result['shape']}: {result['tokens_per_s']:,.0f} tokens/s, {result['gflops']:.0f} GFLOP/s, "
        f"{result['share_of_gemm_peak']:.0%} of the peak, {beside}, {result['moe_over_dense_step']:.2f}x a dense step, "
        f"Muon {result['muon_over_adamw_step']:.2f}x AdamW, {(result['peak_memory_bytes'] or 0) / 2**20:,.0f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
