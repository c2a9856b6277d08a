"""Worker: vLLM for CPUs, its engine stepped in this process, bf16, compiled, without prefix caching."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from typing import Any

from protocol import serve, timed


class Vllm:
    """The v1 engine: `LLMEngine.step` once a token."""

    def prepare(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Start the engine with room for exactly the largest cell."""
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(order["options"].get("kv_gib", 4))
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(
            map(str, sorted(os.sched_getaffinity(0))[: order["threads"]])
        )
        os.environ["VLLM_NO_USAGE_STATS"] = "1"
        os.environ["HF_HUB_OFFLINE"] = "1"
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=order["model"],
                dtype={"bf16": "bfloat16", "float32": "float32"}[order["precision"]],
                max_model_len=order["max_context"],
                max_num_seqs=order["max_sequences"],
                max_num_batched_tokens=order["chunk"],
                enable_prefix_caching=False,
                enforce_eager=bool(order["options"].get("eager", False)),
                disable_log_stats=True,
                seed=0,
            )
        )
        self._chunk = order["chunk"]
        self._asked = 0
        return {"version": importlib.metadata.version("vllm-cpu"), "kv_element_bytes": 2}

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int, max_seconds: float) -> dict[str, Any]:
        """One request for each prompt, aborted when enough steps are timed."""
        from vllm import SamplingParams

        total = sum(map(len, prompts))
        limit = new_tokens + total // self._chunk + 8
        names = []
        seen: dict[str, int] = {}
        for prompt in prompts:
            self._asked += 1
            name = str(self._asked)
            params = SamplingParams(temperature=0.0, max_tokens=limit, ignore_eos=True, detokenize=False)
            given = self._engine.add_request(name, {"prompt_token_ids": list(prompt)}, params)
            names.append((name, given))
            seen[name] = 0

        def step() -> list[list[int]]:
            new: dict[str, list[int]] = {}
            for output in self._engine.step():
                tokens = list(output.outputs[0].token_ids)
                new[output.request_id] = tokens[seen[output.request_id] :]
                seen[output.request_id] = len(tokens)
            return [new.get(name, []) for name, _ in names]

        result = timed(step, len(prompts), new_tokens, max_seconds)
        self._engine.abort_request([name for name, _ in names])
        while self._engine.has_unfinished_requests():
            self._engine.step()
        result["kv_bytes"] = None  # it reserves its whole pool and tells only that
        return result


if __name__ == "__main__":
    serve(Vllm)
