"""From timed requests to figures: percentiles, throughput, goodput, errors by kind. Times in ms, rates by second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fulmen_serving.load.target import Timed

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Slo:
    """What a request must keep to count as good; None asks nothing. Limits in ms.

    `itl_ms` limits the mean time between the tokens of a request.
    """

    ttft_ms: float | None = None
    itl_ms: float | None = None
    e2e_ms: float | None = None

    def asks(self) -> bool:
        """Whether it limits anything."""
        return (self.ttft_ms, self.itl_ms, self.e2e_ms) != (None, None, None)

    def met(self, one: Timed) -> bool:
        """Whether a request that succeeded keeps every limit."""
        gaps = one.output_tokens - 1
        found = (
            (self.ttft_ms, _ttft(one)),
            (self.itl_ms, 1000 * (one.chunks[-1] - one.chunks[0]) / gaps if gaps > 0 else 0.0),
            (self.e2e_ms, _e2e(one)),
        )
        return all(limit is None or value <= limit for limit, value in found)


def distribution(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, percentiles (linearly interpolated) and maximum; None of nothing."""
    if not values:
        return None
    array = np.asarray(values)
    shares = {f"p{share}": float(np.percentile(array, share)) for share in PERCENTILES}
    return {"mean": float(array.mean()), **shares, "max": float(array.max())}


def summarise(requests: Sequence[Timed], begin: float, slo: Slo) -> dict[str, Any]:
    """Figures of all `requests` of a run that began at `begin`; errors count in nothing but ``errors``.

    Inter-token latencies are gaps between arrivals: a server that sends several tokens at once has fewer, longer
    ones.
    """
    good = [one for one in requests if not one.error]
    seconds = max((one.end for one in requests), default=begin) - begin
    tokens = sum(one.output_tokens for one in good)
    counted = {one.usage_tokens is not None for one in good}
    said = {frozenset({True}): "server", frozenset({False}): "chunks"}.get(frozenset(counted), "mixed")
    prompts = [one.prompt_tokens for one in good if one.prompt_tokens is not None]
    met = sum(slo.met(one) for one in good)
    turns = sorted({one.turn for one in good})
    return {
        "duration_s": seconds,
        "completed": len(good),
        "errors": dict(Counter(one.error for one in requests if one.error)),
        "output_tokens": tokens,
        "tokens_counted_by": said if good else None,
        "prompt_tokens_mean": float(np.mean(prompts)) if prompts else None,
        "tokens_per_s": tokens / seconds if seconds else 0.0,
        "requests_per_s": len(good) / seconds if seconds else 0.0,
        "ttft_ms": distribution([_ttft(one) for one in good]),
        "ttft_by_turn_ms": [distribution([_ttft(one) for one in good if one.turn == turn]) for turn in turns],
        "itl_ms": distribution([gap for one in good for gap in (np.diff(one.chunks) * 1000).tolist()]),
        "e2e_ms": distribution([_e2e(one) for one in good]),
        "goodput": {"slo": asdict(slo), "share": met / len(requests), "requests_per_s": met / seconds}
        if slo.asks() and requests and seconds
        else None,
    }


def _ttft(one: Timed) -> float:
    return (one.chunks[0] - one.due) * 1000


def _e2e(one: Timed) -> float:
    return (one.end - one.due) * 1000
