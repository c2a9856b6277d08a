"""Products of the cpu backend's kernels beside torch's in bfloat16, one thread, in one run.

    python bench/products.py                             # 1,024 inputs, 384 outputs
    python bench/products.py --outputs 4096 --json

Kernels and torch take turns, each with its best of some repeats; of the turns the median counts. Activations are packed
beforehand, as a step of a model has them; torch multiplies bfloat16 matrices as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
import torch

from fulmen_backend_cpu.native_library import Format, features, load_library

ROWS = (1, 2, 4, 8, 16, 32, 64, 256)
TURNS, REPEATS = 5, 30


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--inputs", type=int, default=1024)
    parser.add_argument("--outputs", type=int, default=384)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    weights_NK = random.standard_normal((given.outputs, given.inputs), np.float32)
    rows = []
    for count in ROWS:
        x_RK = random.standard_normal((count, given.inputs), np.float32)
        turns = [
            (ours(Format.BFLOAT16, x_RK, weights_NK), ours(Format.INT8, x_RK, weights_NK), theirs(x_RK, weights_NK))
            for _ in range(TURNS)
        ]
        bfloat16, int8, torchs = (float(np.median(one)) for one in zip(*turns, strict=True))
        rows.append(
            {
                "rows": count,
                "bfloat16_us": bfloat16,
                "int8_us": int8,
                "torch_us": torchs,
                "bfloat16_over_torch": float(np.median([turn[2] / turn[0] for turn in turns])),
                "int8_over_bfloat16": float(np.median([turn[0] / turn[1] for turn in turns])),
            }
        )
    if given.json:
        sys.stdout.write(json.dumps({"kernels": str(features(load_library())), "products": rows}, indent=1) + "\n")
        return 0
    sys.stdout.write(f"{features(load_library())}; {given.outputs} outputs of {given.inputs} inputs\n")
    sys.stdout.write("rows  bfloat16 us  int8 us  torch us  bfloat16 over torch  int8 over bfloat16\n")
    for row in rows:
        sys.stdout.write(
            f"{row['rows']:4}  {row['bfloat16_us']:11.1f}  {row['int8_us']:7.1f}  {row['torch_us']:8.1f}"
            f"  {row['bfloat16_over_torch']:18.2f}x  {row['int8_over_bfloat16']:17.2f}x\n"
        )
    return 0


def ours(form: Format, x_RK: np.ndarray, weights_NK: np.ndarray) -> float:
    """Microseconds of one product of the native kernels."""
    out_RN = np.empty((len(x_RK), len(weights_NK)), np.float32)
    taken = load_library().fulmen_product(
        1, form, len(x_RK), *weights_NK.shape, x_RK.ctypes.data, weights_NK.ctypes.data, out_RN.ctypes.data, REPEATS
    )
    return float(taken) / 1e3


def theirs(x_RK: np.ndarray, weights_NK: np.ndarray) -> float:
    """Microseconds of one product of torch in bfloat16."""
    x, weights = torch.from_numpy(x_RK).bfloat16(), torch.from_numpy(weights_NK).bfloat16().T
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter_ns()
        x @ weights
        best = min(best, time.perf_counter_ns() - started)
    return best / 1e3


if __name__ == "__main__":
    sys.exit(main())
