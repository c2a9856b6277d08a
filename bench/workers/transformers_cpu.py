"""Worker: Hugging Face transformers, its own cache and grouped experts, driven as `generate` does."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from protocol import serve, timed


class Transformers:
    """Prompts of one length run as one batch, read in chunks into the model's own (sliding) cache."""

    def prepare(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Load with the fastest of its settings here: SDPA attention and `grouped_mm` experts."""
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(order["threads"])
        self._dtype = {"bf16": torch.bfloat16, "float32": torch.float32}[order["precision"]]
        self._model = AutoModelForCausalLM.from_pretrained(
            order["model"], dtype=self._dtype, attn_implementation="sdpa", experts_implementation="grouped_mm"
        )
        self._model.eval()
        self._chunk = order["chunk"]
        return {"version": importlib.metadata.version("transformers"), "kv_element_bytes": self._dtype.itemsize}

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int, max_seconds: float) -> dict[str, Any]:
        """Forward passes over the cache; the argmax of the last position is the next token."""
        import torch
        from transformers import DynamicCache

        ids_BT = torch.tensor(prompts)
        cache = DynamicCache(config=self._model.config)
        done = 0
        columns = max(128, self._chunk // len(prompts))
        next_B: torch.Tensor | None = None

        def step() -> list[list[int]]:
            nonlocal done, next_B
            if next_B is None:
                part = ids_BT[:, done : done + columns]
                done += part.shape[1]
            else:
                part = next_B[:, None]
            out = self._model(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=1)
            if next_B is None and done < ids_BT.shape[1]:
                return [[] for _ in prompts]
            next_B = out.logits[:, -1].argmax(-1)
            return [[token] for token in next_B.tolist()]

        with torch.inference_mode():
            result = timed(step, len(prompts), new_tokens, max_seconds)
        result["kv_bytes"] = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        return result


if __name__ == "__main__":
    serve(Transformers)
