"""What precision costs: perplexity of a model through the runner that serves it, by weights and by cache.

    python bench/quantisation.py --model DIR [--text FILE] [--json]

Every setting reads the same tokens, by the same steps: a prompt chunk at the beginning of each window of text, then one
token at a time, so that both the prefill and the decode kernels are judged. The change is relative to float32 weights
with a float32 cache; the promise is at most 0.5 %.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from fulmen_backend_cpu.backend import CpuBackend
from fulmen_core.backend import Dtype, KVDtype, Quantization
from fulmen_core.runner import EngineLimits, Runner, SequenceStep
from fulmen_core.tokenizer import load_tokenizer

#: Name -> precision of products, quantisation of weights, precision of keys and values.
SETTINGS: dict[str, tuple[str, str | None, str]] = {
    "float32": ("float32", None, "float32"),
    "bf16": ("bfloat16", None, "bfloat16"),
    "bf16, KV int8": ("bfloat16", None, "int8"),
    "int8": ("bfloat16", "int8", "bfloat16"),
    "int8, KV int8": ("bfloat16", "int8", "int8"),
}
BOUND = 0.005


def main() -> int:
    """Measure every setting. Returns 1 if one exceeds the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model directory with a tokenizer")
    parser.add_argument("--text", type=Path, help="text to read; default: docstrings of Python's standard library")
    parser.add_argument("--tokens", type=int, default=4096, help="how many of its tokens (%(default)s)")
    parser.add_argument("--window", type=int, default=512, help="tokens of one context (%(default)s)")
    parser.add_argument("--sequences", type=int, default=8, help="windows decoded together (%(default)s)")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    text = args.text.read_text(encoding="utf-8") if args.text else standard_docstrings()
    ids = load_tokenizer(args.model).encode(text)[: args.tokens]
    windows = [ids[i : i + args.window] for i in range(0, len(ids) - args.window + 1, args.window)]
    if not windows:
        print(f"the text has {len(ids)} tokens, fewer than a window of {args.window}", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    for name, (dtype, quantize, kv_dtype) in SETTINGS.items():
        limits = EngineLimits(args.sequences, args.window, args.sequences * args.window, args.threads)
        runner = CpuBackend().load_runner(
            args.model,
            limits,
            cast("Dtype", dtype),
            quantize=cast("Quantization | None", quantize),
            kv_dtype=cast("KVDtype", kv_dtype),
        )
        begin = time.perf_counter()
        perplexity = measure(runner, windows, args.sequences)
        runner.close()
        base = rows[0]["perplexity"] if rows else perplexity
        change = perplexity / base - 1
        rows.append({"setting": name, "perplexity": perplexity, "change": change, "within_bound": abs(change) <= BOUND})
        spent = time.perf_counter() - begin
        print(f"{name:<14} perplexity {perplexity:9.4f}  change {change:+8.3%}  ({spent:.0f} s)", file=sys.stderr)
    if args.json:
        print(json.dumps({"rows": rows, "tokens": len(windows) * (args.window - 1), "bound": BOUND}))
    return int(any(row["change"] > BOUND for row in rows))


def measure(runner: Runner, windows: Sequence[Sequence[int]], sequences: int) -> float:
    """Perplexity of all but the first half of each window, given what stands before it.

    The first half is read as one chunk; each token after it is one decode step over `sequences` windows together.
    """
    surprise, count = 0.0, 0
    half = len(windows[0]) // 2
    for first in range(0, len(windows), sequences):
        group = windows[first : first + sequences]
        logits_SV = runner.step([SequenceStep(slot, 0, window[:half]) for slot, window in enumerate(group)])
        for place in range(half, len(group[0])):
            surprise += _surprise(logits_SV, [window[place] for window in group])
            count += len(group)
            if place + 1 < len(group[0]):
                steps = [SequenceStep(slot, place, [window[place]]) for slot, window in enumerate(group)]
                logits_SV = runner.step(steps)
        for slot in range(len(group)):
            runner.release(slot)
    return math.exp(surprise / count)


def _surprise(logits_SV: np.ndarray[Any, np.dtype[np.float32]], targets: Sequence[int]) -> float:
    """The sum of ``-log p(target)`` in nats, in float64."""
    logits = logits_SV.astype(np.float64)
    top = logits.max(-1)
    norm = top + np.log(np.exp(logits - top[:, None]).sum(-1))
    return float((norm - logits[np.arange(len(targets)), list(targets)]).sum())


def standard_docstrings() -> str:
    """English that every Python has: docstrings of modules of its standard library and of what they define."""
    import ast

    parts = []
    for path in sorted(Path(json.__file__).parent.parent.glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
        parts += [text for text in found if text and len(text) > 200]
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
