"""How a worker speaks with the driver: one JSON object a line, questions on stdin, answers on what was stdout.

Libraries may print what they like: file descriptor 1 becomes stderr before any of them is imported. A worker ends when
its stdin ends, and the kernel ends it when the driver dies. Standard library alone: workers run in foreign
environments.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

_PR_SET_PDEATHSIG = 1  # prctl(2)


class Engine(Protocol):
    """What a worker file implements."""

    def prepare(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """Load the model of ``order["model"]`` and return details worth reporting.

        `order` has ``model``, ``work`` (a folder for converted files), ``precision``, ``threads``, ``max_sequences``,
        ``max_context`` and ``chunk`` (the most prompt tokens of one step).
        """
        ...

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int, max_seconds: float) -> Mapping[str, Any]:
        """Continue all `prompts` greedily, ignoring any end token, and return the timings.

        Returns: ``prefill_s`` until every prompt has its first token; ``decode_s`` and ``decode_tokens`` of the steps
        after that; ``tokens``, the first new tokens of each prompt; ``kv_bytes`` or None.
        """
        ...


def serve(make: Callable[[], Engine]) -> None:
    """Answer questions until stdin ends. `make` imports the engine's libraries, so that a failure is an answer too."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    engine: Engine | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "prepare":
                engine = make()
                answer = dict(engine.prepare(order))
            else:
                assert engine is not None
                reset_peak_memory()
                answer = dict(engine.generate(order["prompts"], order["new_tokens"], order["max_seconds"]))
                answer["peak_memory_bytes"] = peak_memory()
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error).strip()[:400]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def timed(
    step: Callable[[], Sequence[Sequence[int]]], sequences: int, new_tokens: int, max_seconds: float
) -> dict[str, Any]:
    """Drive an engine whose `step` returns the tokens that each sequence gained; time the two phases.

    Engines that admit prompts by chunks decode early sequences while later ones are still read: those tokens belong to
    the prefill's time. Decode is timed from the moment that every sequence has a token, over `new_tokens` steps.
    """
    gained: list[list[int]] = [[] for _ in range(sequences)]

    def advance() -> int:
        count = 0
        for tokens, new in zip(gained, step(), strict=True):
            tokens.extend(new)
            count += len(new)
        return count

    begin = time.perf_counter()
    while not all(gained):
        advance()
    first = time.perf_counter()
    tokens = steps = 0
    while steps < new_tokens and (steps < 4 or time.perf_counter() - first < max_seconds):
        tokens += advance()
        steps += 1
    end = time.perf_counter()
    return {
        "prefill_s": first - begin,
        "decode_s": end - first,
        "decode_tokens": tokens,
        "tokens": [one[:16] for one in gained],
    }


def peak_memory() -> int | None:
    """Highest resident bytes of this process since `reset_peak_memory`; None where the kernel does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def reset_peak_memory() -> None:
    """Start counting the peak anew (proc(5), clear_refs); without it the peak is that of the process's life."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
