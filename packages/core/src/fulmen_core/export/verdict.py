"""Whether a comparison's figures are good enough for the precision of the artefact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Largest difference of logits of an artefact in float32, none of which is larger than `_LARGE`. Rounding is a share of
#: what is rounded: beyond, the bound grows in proportion.
TOLERANCE = 1e-4
_LARGE = 10.0
#: Largest mean divergence, in nats, of a reduced precision. A largest difference would tell nothing: one token whose
#: router chooses another expert decides it.
DIVERGENCE = {"float16": 0.01, "bfloat16": 0.02, "int8": 0.05, "fp8": 0.15, "int4": 0.3}


def fault(found: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """Why an artefact with this manifest does not compute the model, in a few words; empty if it does.

    Args:
        found: what `Exporter.check` returned.
        manifest: of the artefact; one without a dtype is of float32.
    """
    precision = manifest.get("quantize") or manifest.get("dtype", "float32")
    bound = DIVERGENCE.get(precision)
    if bound is not None and "mean_kl" in found:
        return "" if found["mean_kl"] <= bound else f"it diverges by {found['mean_kl']:.3f} nats, more than {bound}"
    tolerance = TOLERANCE * max(1.0, found.get("max_abs_logit", 0.0) / _LARGE)
    if not found["max_abs_diff"] <= tolerance:
        return f"logits differ by {found['max_abs_diff']:.1e}, more than {tolerance:.0e}"
    return "" if found["greedy_equal"] else "greedy answers differ"
