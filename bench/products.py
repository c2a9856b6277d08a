"""Products of the cpu backend's kernels beside torch's in bfloat16, one thread, in one run.

    python bench/products.py                             # 1,024 inputs, 384 outputs
    python bench/products.py --outputs 4096 --json

Kernels and torch take turns on one core, each with its best of some repeats; of the turns the median counts. Both sides
are packed beforehand for the kernels, as a model has them; torch multiplies bfloat16 matrices as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from fulmen_backend_cpu.native_library import Format, check, features, load_library
from fulmen_core.native_build import NativeUnavailable

ROWS = (1, 2, 4, 8, 16, 32, 64, 256)
TURNS, REPEATS = 5, 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 2 if there are no kernels."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--inputs", type=size, default=1024, help="of each row (%(default)s)")
    parser.add_argument("--outputs", type=size, default=384, help="of each row (%(default)s)")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    try:
        kernels = str(features(load_library()))
    except NativeUnavailable as error:
        sys.stderr.write(f"bench/products.py measures compiled kernels: {error}\n")
        return 2
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
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
        sys.stdout.write(json.dumps({"kernels": kernels, "products": rows}, indent=1) + "\n")
        return 0
    sys.stdout.write(f"{kernels}; {given.outputs} outputs of {given.inputs} inputs\n")
    sys.stdout.write("rows  bfloat16 us  int8 us  torch us  bfloat16 over torch  int8 over bfloat16\n")
    for row in rows:
        sys.stdout.write(
            f"{row['rows']:4}  {row['bfloat16_us']:11.1f}  {row['int8_us']:7.1f}  {row['torch_us']:8.1f}"
            f"  {row['bfloat16_over_torch']:18.2f}x  {row['int8_over_bfloat16']:17.2f}x\n"
        )
    return 0


def size(text: str) -> int:
    """Return a whole number from 1 on."""
    if not text.isdecimal() or not (number := int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return number


def ours(form: Format, x_RK: np.ndarray, weights_NK: np.ndarray) -> float:
    """Microseconds of one product of the native kernels. Raises `MemoryError`."""
    library = load_library()
    out_RN = np.empty((len(x_RK), len(weights_NK)), np.float32)
    nanoseconds: int = library.fulmen_product(
        1, form, len(x_RK), *weights_NK.shape, x_RK.ctypes.data, weights_NK.ctypes.data, out_RN.ctypes.data, REPEATS
    )
    check(library, nanoseconds < 0)
    return nanoseconds / 1e3


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
