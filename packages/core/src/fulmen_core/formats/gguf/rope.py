"""Stretched rotary frequencies in GGUF: as metadata ("linear", "yarn"), or for Llama 3.1 as a tensor of divisors."""

from __future__ import annotations

import math
from typing import Any

from fulmen_core.formats.gguf.fields import Fields

#: What every Llama 3.x checkpoint was stretched with; the factor is the largest divisor.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_TOLERANCE = 1e-4


def rope_scaling(fields: Fields, head_dim: int, divisors: list[float] | None) -> dict[str, Any] | None:
    """The config's `rope_scaling`, or None for frequencies as they are.

    Args:
        fields: the metadata.
        head_dim: rotary width; there are half as many frequencies.
        divisors: the values of `rope_freqs.weight`, one for each frequency, if the file has that tensor.

    Raises:
        UserError: the frequencies are stretched in a way that is not implemented.
    """
    kind = fields.text(".rope.scaling.type", "none")
    if divisors is not None:
        if kind != "none":
            raise fields.refuse(f"rope_freqs.weight together with rope scaling {kind!r} is not supported")
        return _llama3(fields, head_dim, divisors)
    if kind == "none":
        return None
    factor = fields.number(".rope.scaling.factor")
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise fields.refuse(f"rope scaling {kind!r} is not supported", remedy="only linear, yarn and llama3 are")
    for key, neutral in ((".rope.scaling.attn_factor", 1.0), (".rope.scaling.yarn_log_multiplier", 0.0)):
        if fields.number(key, neutral) != neutral:
            raise fields.refuse(f"{fields.architecture}{key} {fields.number(key)} is not supported")
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": fields.integer(".rope.scaling.original_context_length"),
        "beta_fast": fields.number(".rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": fields.number(".rope.scaling.yarn_beta_slow", 1.0),
    }


def _llama3(fields: Fields, head_dim: int, divisors: list[float]) -> dict[str, Any]:
    factor = max(divisors)
    theta = fields.number(".rope.freq_base", 10_000.0)
    expected = [_llama3_divisor(theta ** (2 * j / head_dim), factor) for j in range(head_dim // 2)]
    if len(divisors) != len(expected) or any(
        abs(one - other) > _TOLERANCE * other for one, other in zip(divisors, expected, strict=True)
    ):
        raise fields.refuse("rope_freqs.weight holds other divisors than Llama 3's, which is not supported")
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _llama3_divisor(inverse_frequency: float, factor: float) -> float:
    wavelength = 2 * math.pi * inverse_frequency
    context, low, high = (
        _LLAMA3[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    if wavelength < context / high:
        return 1.0
    if wavelength > context / low:
        return factor
    smooth = (context / wavelength - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)
