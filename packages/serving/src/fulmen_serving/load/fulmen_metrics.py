"""What a Fulmen server's own ``/metrics`` say about a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

_BUSY = "fulmen_model_busy_fraction"


async def read_metrics(client: httpx.AsyncClient) -> dict[str, float] | None:
    """The unlabelled samples of ``/metrics`` by name, or None if the server is not Fulmen or does not tell."""
    try:
        response = await client.get("metrics")
    except httpx.HTTPError:
        return None
    if response.status_code != 200:
        return None
    samples = {}
    for line in response.text.splitlines():
        name, _, value = line.partition(" ")
        if name.startswith("fulmen_") and "{" not in name:
            try:
                samples[name] = float(value)
            except ValueError:
                return None
    return samples if _BUSY in samples else None


def engine_report(
    before: Mapping[str, float] | None, after: Mapping[str, float] | None, seconds: float
) -> dict[str, Any] | None:
    """What the engine did between two readings, or None without them.

    Returns: ``busy``, the model's share of the engine's recent working time; ``model_share``, its share of the whole
    run; ``steps``; ``batch``, tokens generated in a step; ``step_tokens``, tokens computed in a step, prompts included.
    """
    if before is None or after is None:
        return None

    def gained(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    steps = gained("fulmen_step_seconds_count")
    return {
        "busy": after[_BUSY],
        "model_share": gained("fulmen_step_seconds_sum") / seconds,
        "steps": int(steps),
        "batch": gained("fulmen_generated_tokens_total") / steps if steps else 0.0,
        "step_tokens": gained("fulmen_step_tokens_total") / steps if steps else 0.0,
    }
