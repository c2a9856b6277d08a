"""Names in the graph: those that users of optimum-intel know, and ours, by which `paging` finds its way.

N counts the caches of the layer plan and L its layers: a layer that borrows its keys and values has no cache.
"""

from __future__ import annotations

INPUT_IDS, ATTENTION_MASK, POSITION_IDS, BEAM_INDEX = "input_ids", "attention_mask", "position_ids", "beam_idx"
LOGITS = "logits"
#: The residual stream before the last norm, and after it.
STREAM, HIDDEN = "stream", "hidden"


def variable(cache: int, kind: str) -> str:
    """The state that holds a cache's "key" or "value"."""
    return f"past_key_values.{cache}.{kind}present.{cache}.{kind}"


def new(cache: int, kind: str) -> str:
    """What a step adds to a cache: [B, K, T, h], "key" or "value"."""
    return f"new.{cache}.{kind}"


def query(layer: int) -> str:
    """A layer's rotated queries [B, H, T, h]."""
    return f"layers.{layer}.query"


def heads(layer: int) -> str:
    """What a layer's heads result in, side by side: [B, T, H*h]."""
    return f"layers.{layer}.heads"
