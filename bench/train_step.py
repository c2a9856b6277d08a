"""What a training step costs on this CPU, as a share of what its matrix products could do and beside transformers.

    python bench/train_step.py --threads 2                  # 12M, 34M and 128M
    python bench/train_step.py --shapes 34M-fine --json

Every figure is the median over rounds. A round measures, one after the other, the peak of matrix products, a step of
Fulmen with fused AdamW, one with Muon, one of the dense model with the same active parameters, and one of transformers'
Qwen3-MoE of the same dimensions with whichever of its settings was fastest before. Ratios are taken within the round,
as processors drift.
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
from pathlib import Path
from typing import Any

import torch
from train_peers import TRANSFORMERS_SETTINGS, Contestant, fulmen, transformers, transformers_missing
from train_shapes import Shape, active_matrices, dense_of, shapes, step_flops

PEAK_SIZES = (512, 1024, 2048)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table or JSON."""
    options = _options(arguments)
    _pin(options.threads)
    results = [measure(shapes()[name], options) for name in options.shapes]
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        for result in results:
            print(_row(result))
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
    warm_up(ours, options.warmup)
    memory = peak_memory(ours)
    contestants = {
        "fulmen": ours,
        "muon": fulmen(shape.config, rows, tokens, optimizer="muon"),
        "dense": fulmen(dense_of(shape), rows, tokens),
    }
    for name in ("muon", "dense"):
        warm_up(contestants[name], options.warmup)
    tried: dict[str, float | str] = {}
    reason = "left out" if options.no_transformers else transformers_missing()
    if reason is None:
        contestants["transformers"], tried = best_transformers(shape, options)
    rounds = [one_round(contestants) for _ in range(options.rounds)]

    def median(of: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(of(seconds) for seconds in rounds)

    flops = step_flops(shape.config, rows, tokens)
    peak = "bfloat16" if ours.settings["dtype"] == "bfloat16" else "float32"
    peer = "transformers" in contestants
    return {
        "shape": shape.name,
        "parameters": sum(p.numel() for p in contestants_parameters(shape)),
        "active_parameters": active_matrices(shape.config),
        "step_tokens": shape.step_tokens,
        "threads": options.threads,
        "tokens_per_s": shape.step_tokens / median(lambda s: s["fulmen"]),
        "gflops": flops / median(lambda s: s["fulmen"]) / 1e9,
        "gemm_peak_gflops": {dtype: median(lambda s, d=dtype: s[d]) for dtype in ("float32", "bfloat16")},  # type: ignore[misc]
        "share_of_gemm_peak": median(lambda s: flops / s["fulmen"] / 1e9 / s[peak]),
        "ratio_vs_transformers": median(lambda s: s["transformers"] / s["fulmen"]) if peer else None,
        "ratio_reason": reason,
        "transformers_tokens_per_s": shape.step_tokens / median(lambda s: s["transformers"]) if peer else None,
        "transformers_settings": dict(contestants["transformers"].settings) if peer else None,
        "transformers_tried_tokens_per_s": tried,
        "moe_over_dense_step": median(lambda s: s["fulmen"] / s["dense"]),
        "muon_over_adamw_step": median(lambda s: s["muon"] / s["fulmen"]),
        "settings": dict(ours.settings),
        "first_step_seconds": first_seconds,
        "peak_memory_bytes": memory,
    }


def contestants_parameters(shape: Shape) -> list[torch.Tensor]:
    """The parameters of the shape's model, without memory."""
    from fulmen_core.model.transformer import Transformer

    with torch.device("meta"):
        return list(Transformer(shape.config).parameters())


def warm_up(contestant: Contestant, steps: int) -> None:
    """Let routers leave their start, and oneDNN compile its kernels: one for each number of rows that experts get."""
    for _ in range(steps):
        contestant.step()


def one_round(contestants: dict[str, Contestant]) -> dict[str, float]:
    """Seconds of a step by contestant, and GFLOP/s of the best product by dtype."""
    measured = {"float32": gemm_peak(torch.float32), "bfloat16": gemm_peak(torch.bfloat16)}
    for name, contestant in contestants.items():
        began = time.perf_counter()
        contestant.step()
        measured[name] = time.perf_counter() - began
    return measured


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
            contestant = transformers(shape.config, shape.rows, shape.tokens, settings)
            warm_up(contestant, options.warmup_transformers)
            seconds = min(one_round({"it": contestant})["it"] for _ in range(2))
        except Exception as error:  # what torch.compile throws has no common type
            tried[label] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        tried[label] = shape.step_tokens / seconds
        if best is None or seconds < best[0]:
            best = seconds, contestant
        gc.collect()
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
