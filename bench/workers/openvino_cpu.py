"""Worker: OpenVINO GenAI's continuous batching pipeline over an IR that optimum-intel exported."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protocol import serve, timed

#: Precision -> what the weights are stored in (bf16 is the precision of products), and of the cache ("u8" is its
#: default, and what its users have).
_PRECISIONS = {"bf16": ("fp16", "bf16"), "int8": ("int8", "u8")}


class OpenVino:
    """`ContinuousBatchingPipeline.step` once a token."""

    def prepare(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Export once into the work folder, then compile for two pinned threads."""
        weights, cache = _PRECISIONS[order["precision"]]
        artefact = Path(order["work"]) / f"openvino-{weights}"
        if not artefact.exists():
            export(order["model"], artefact, weights)
        import openvino_genai as genai

        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = order["chunk"]
        scheduler.max_num_seqs = max(order["max_sequences"], 1)
        scheduler.enable_prefix_caching = False
        scheduler.dynamic_split_fuse = True
        properties = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "KV_CACHE_PRECISION": cache,
            "INFERENCE_NUM_THREADS": order["threads"],
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": True,
        }
        self._pipeline = genai.ContinuousBatchingPipeline(str(artefact), scheduler, "CPU", properties)
        self._chunk = order["chunk"]
        self._asked = 0
        version = importlib.metadata.version("openvino-genai")
        return {"version": version, "kv_element_bytes": 1 if cache == "u8" else 2}

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int, max_seconds: float) -> dict[str, Any]:
        """One request for each prompt, stopped when enough steps are timed."""
        import numpy as np
        import openvino as ov
        import openvino_genai as genai

        config = genai.GenerationConfig()
        config.max_new_tokens = new_tokens + sum(map(len, prompts)) // self._chunk + 8
        config.ignore_eos = True
        config.do_sample = False
        handles = []
        for prompt in prompts:
            self._asked += 1
            ids = ov.Tensor(np.asarray([prompt], dtype=np.int64))
            handles.append(self._pipeline.add_request(self._asked, ids, config))

        def step() -> list[list[int]]:
            self._pipeline.step()
            new: list[list[int]] = []
            for handle in handles:
                read: list[int] = []
                while handle.can_read():
                    for output in handle.read().values():
                        read += output.generated_ids
                new.append(read)
            return new

        result = timed(step, len(prompts), new_tokens, max_seconds)
        metrics = self._pipeline.get_metrics()
        result["kv_bytes"] = int(metrics.cache_size_in_bytes)
        for handle in handles:
            handle.stop()
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        return result


def export(model: str, artefact: Path, weights: str) -> None:
    """Convert with `optimum-cli`, under a temporary name until it is whole."""
    unfinished = artefact.with_name(artefact.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [
        *(str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino"),
        *("-m", model, "--task", "text-generation-with-past", "--weight-format", weights, str(unfinished)),
    ]
    subprocess.run(command, check=True)
    unfinished.rename(artefact)


if __name__ == "__main__":
    serve(OpenVino)
