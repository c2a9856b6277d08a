"""How far quantised artefacts are from the checkpoint they were made of, beside the cpu backend's own int8.

    python backends/onnxruntime/bench/divergence.py --model DIR --text FILE --artefact DIR [DIR ...]

All read the same tokens of the text, in steps of `CHUNK` of each window, so that the kernels are those that decode.
Printed is the mean divergence of the next token's distribution from the one that the cpu backend computes in float32,
in nats, with its standard error over windows; and that of the difference to the first artefact, which pairs windows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fulmen_core.backend import KVDtype
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits, Runner, SequenceStep
from fulmen_core.tokenizer import load_tokenizer

CHUNK = 8


def log_probabilities(runner: Runner, window: Sequence[int]) -> Iterator[NDArray[np.float64]]:
    """Of the token after each of the window's: float64 [T, V], T = `CHUNK` at a time."""
    for start in range(0, len(window), CHUNK):
        tokens = window[start : start + CHUNK]
        logits_TV = runner.step([SequenceStep(0, start, tokens, wanted=len(tokens))]).astype(np.float64)
        logits_TV -= logits_TV.max(-1, keepdims=True)
        yield logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))
    runner.release(0)


def divergence(exact: Runner, found: Runner, window: Sequence[int]) -> float:
    """Mean over the window's tokens, in nats."""
    total = 0.0
    for exact_TV, found_TV in zip(log_probabilities(exact, window), log_probabilities(found, window), strict=True):
        total += float((np.exp(exact_TV) * (exact_TV - found_TV)).sum())
    return total / len(window)


@contextmanager
def opened(runner: Runner) -> Iterator[Runner]:
    """The runner, closed afterwards."""
    try:
        yield runner
    finally:
        runner.close()


def main() -> None:
    """Measure each contender in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model directory with a tokenizer")
    parser.add_argument("--text", type=Path, required=True, help="a text file")
    parser.add_argument("--artefact", type=Path, nargs="*", default=[], help="made of the model")
    parser.add_argument("--tokens", type=int, default=1536, help="how many of the text's (%(default)s)")
    parser.add_argument("--window", type=int, default=128, help="tokens of one context (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ids = load_tokenizer(args.model).encode(args.text.read_text(encoding="utf-8"))[: args.tokens]
    windows = [ids[i : i + args.window] for i in range(0, len(ids) - args.window + 1, args.window)]
    registry, limits = Registry.discover(), EngineLimits(1, args.window, CHUNK, args.threads)
    caches: tuple[KVDtype, ...] = ("bfloat16", "int8")
    cpu = registry.backend("cpu")
    first_W: NDArray[np.float64] | None = None
    with opened(cpu.load_runner(args.model, limits, "float32")) as exact:

        def show(name: str, runner: Runner) -> NDArray[np.float64]:
            with opened(runner):
                found_W = np.array([divergence(exact, runner, window) for window in windows])
            line = f"{name:<24} {found_W.mean():.5f} +- {_error(found_W):.5f}"
            if first_W is not None:
                line += f"; {(found_W - first_W).mean():+.5f} +- {_error(found_W - first_W):.5f}"
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            return found_W

        for artefact in args.artefact:
            found_W = show(artefact.name, registry.backend("onnxruntime").load_runner(artefact, limits))
            first_W = found_W if first_W is None else first_W
        for kv_dtype in caches:
            runner = cpu.load_runner(args.model, limits, "bfloat16", quantize="int8", kv_dtype=kv_dtype)
            show(f"cpu int8, KV {kv_dtype}", runner)


def _error(values_W: NDArray[np.float64]) -> float:
    return float(values_W.std(ddof=1) / len(values_W) ** 0.5)


if __name__ == "__main__":
    main()
