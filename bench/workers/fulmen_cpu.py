"""Worker: Fulmen's CPU backend, its runner stepped as the serving engine does: chunks of prompts, then decode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from protocol import serve, timed

#: Precision -> weights, and what keys and values are kept in.
_PRECISIONS: dict[str, tuple[Literal["int8"] | None, Literal["bfloat16", "int8"]]] = {
    "bf16": (None, "bfloat16"),
    "int8": ("int8", "int8"),
}


class Fulmen:
    """`Runner.step` over slots ``0 .. batch - 1``."""

    def prepare(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Import the folder once; runners are made by `generate`, sized for the cell as the peers' caches are."""
        from fulmen_backend_cpu.backend import CpuBackend
        from fulmen_core.formats.huggingface import read
        from fulmen_core.formats.writing import write_model

        self._model = Path(order["work"]) / "fulmen"
        if not self._model.exists():
            write_model(read(Path(order["model"])), self._model)
        self._order = order
        self._backend = CpuBackend()
        self._runner: Any = None
        self._open(1, 128)
        return {
            "choices": dict(self._runner.choices),
            "kv_element_bytes": 1 if self._runner.choices["kv_dtype"] == "int8" else 2,
        }

    def _open(self, sequences: int, tokens: int) -> None:
        from fulmen_core.runner import EngineLimits

        limits = self._runner and self._runner.limits
        if limits and limits.max_sequences == sequences and limits.max_context == tokens:
            return
        if self._runner:
            self._runner.close()
        quantize, kv_dtype = _PRECISIONS[self._order["precision"]]
        self._runner = self._backend.load_runner(
            self._model,
            EngineLimits(sequences, tokens, max(self._order["chunk"], sequences), self._order["threads"]),
            "bfloat16",
            quantize=quantize,
            kv_dtype=kv_dtype,
        )

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int, max_seconds: float) -> dict[str, Any]:
        """Greedy continuation of all prompts."""
        from fulmen_core.runner import SequenceStep

        length, chunk = len(prompts[0]), self._order["chunk"]
        self._open(len(prompts), length + new_tokens + 8)
        runner = self._runner
        waiting = list(_chunks(prompts, chunk))
        last = [0] * len(prompts)
        position = length

        def step() -> list[list[int]]:
            nonlocal position
            new: list[list[int]] = [[] for _ in prompts]
            if waiting:
                parts = waiting.pop(0)
                steps = [SequenceStep(slot, start, prompts[slot][start:end]) for slot, start, end in parts]
                ended = [slot if end == length else None for slot, _, end in parts]
            else:
                steps = [SequenceStep(slot, position, [token]) for slot, token in enumerate(last)]
                ended = list(range(len(prompts)))
                position += 1
            for slot, token in zip(ended, runner.step(steps).argmax(-1).tolist(), strict=True):
                if slot is not None:
                    last[slot] = token
                    new[slot] = [token]
            return new

        result = timed(step, len(prompts), new_tokens, max_seconds)
        for slot in range(len(prompts)):
            runner.release(slot)
        result["kv_bytes"] = runner.kv_bytes()
        return result


def _chunks(prompts: Sequence[Sequence[int]], budget: int) -> Sequence[list[tuple[int, int, int]]]:
    """The steps of a prefill under a token budget: (slot, start, end) parts, first come first served."""
    steps: list[list[tuple[int, int, int]]] = [[]]
    left = budget
    for slot, prompt in enumerate(prompts):
        start = 0
        while start < len(prompt):
            if not left:
                steps.append([])
                left = budget
            end = min(len(prompt), start + left)
            steps[-1].append((slot, start, end))
            left -= end - start
            start = end
    return steps


if __name__ == "__main__":
    serve(Fulmen)
