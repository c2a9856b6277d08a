"""Worker: llama.cpp through the low-level calls of llama-cpp-python; BF16, or Q8_0 quantised by llama.cpp itself."""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protocol import serve, timed

_ERROR = 4  # ggml_log_level


def _log_errors(level: int, text: bytes, _: object) -> None:
    """Of its log, which has lines for every graph, keep what went wrong."""
    if level == _ERROR:
        print(text.decode(errors="replace"), end="", flush=True)


class LlamaCpp:
    """`llama_decode` over explicit batches: prompts by chunks, then one token of every sequence."""

    def prepare(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Write the GGUF once, quantise it if asked, and load it with caches by sequence and small windows."""
        import llama_cpp

        self._lib = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(_log_errors)
        llama_cpp.llama_log_set(self._quiet, None)
        path = Path(order["work"]) / "llama-bf16.gguf"
        if not path.exists():
            from afmoe_gguf import write_gguf

            write_gguf(Path(order["model"]), path)
        if order["precision"] == "q8_0":
            path = self._quantised(path)
        model_params = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        self._order = order
        self._context: Any = None
        self._shape = (0, 0)
        system = llama_cpp.llama_print_system_info().decode()
        version = importlib.metadata.version("llama-cpp-python")
        return {"version": version, "system": system, "kv_element_bytes": 2}

    def _quantised(self, source: Path) -> Path:
        target = source.with_name("llama-q8_0.gguf")
        if not target.exists():
            params = self._lib.llama_model_quantize_default_params()
            params.ftype = self._lib.LLAMA_FTYPE_MOSTLY_Q8_0
            params.nthread = self._order["threads"] if hasattr(self, "_order") else 1
            unfinished = target.with_name(target.name + ".unfinished")
            if self._lib.llama_model_quantize(str(source).encode(), str(unfinished).encode(), ctypes.byref(params)):
                raise RuntimeError(f"llama.cpp does not quantise {source}")
            unfinished.rename(target)
        return target

    def _open(self, sequences: int, tokens: int) -> None:
        """A context sized for the cell, as its users size theirs: a longer one costs memory, not speed."""
        if self._shape == (sequences, tokens):
            self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
            return
        if self._context:
            self._lib.llama_free(self._context)
        params = self._lib.llama_context_default_params()
        params.n_ctx = sequences * (-(-tokens // 256) * 256)
        params.n_batch = self._order["chunk"]
        params.n_ubatch = min(self._order["chunk"], 512)
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = self._order["threads"]
        params.swa_full = False
        params.kv_unified = False
        params.no_perf = True
        self._context = self._lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp makes no context")
        self._shape = (sequences, tokens)

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int, max_seconds: float) -> dict[str, Any]:
        """Greedy continuation of all prompts."""
        lib = self._lib
        self._open(len(prompts), len(prompts[0]) + new_tokens + 8)
        vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        batch = lib.llama_batch_init(self._order["chunk"], 0, 1)
        length = len(prompts[0])
        waiting = [
            (token, place, number, place + 1 == length)
            for number, prompt in enumerate(prompts)
            for place, token in enumerate(prompt)
        ]
        last: list[int] = [0] * len(prompts)
        position = length

        def submit(rows: Sequence[tuple[int, int, int, bool]]) -> None:
            batch.n_tokens = len(rows)
            for i, (token, place, number, wanted) in enumerate(rows):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, place, 1
                batch.seq_id[i][0], batch.logits[i] = number, wanted
            if lib.llama_decode(self._context, batch):
                raise RuntimeError("llama_decode failed")

        def best(row: int) -> int:
            import numpy as np

            logits = lib.llama_get_logits_ith(self._context, row)
            return int(np.ctypeslib.as_array(logits, (vocabulary,)).argmax())

        def step() -> list[list[int]]:
            nonlocal position
            new: list[list[int]] = [[] for _ in prompts]
            if waiting:
                part = waiting[: self._order["chunk"]]
                del waiting[: len(part)]
                submit(part)
                for row, (_, _, number, wanted) in enumerate(part):
                    if wanted:
                        last[number] = best(row)
                        new[number] = [last[number]]
                return new
            submit([(token, position, number, True) for number, token in enumerate(last)])
            position += 1
            for number in range(len(prompts)):
                last[number] = best(number)
                new[number] = [last[number]]
            return new

        try:
            result = timed(step, len(prompts), new_tokens, max_seconds)
        finally:
            lib.llama_batch_free(batch)
        result["kv_bytes"] = None  # said in its log alone
        return result


if __name__ == "__main__":
    serve(LlamaCpp)
