"""Experts in 8 bits: symmetric, one scale for each output of a product.

Only experts: TensorRT-RTX 1.7 builds constants in 8 bits (DequantizeLinear) in small graphs, and in larger ones fails
with "there are uses before defs".

Legend: A outputs, D inputs of a product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fulmen_core.backend import Dtype

TORCH: dict[Dtype, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_LARGEST = 127


class Rounded(NamedTuple):
    """`values` int8, of the weight's shape; `scale`, which they are multiplied by, 1 wide along the inputs."""

    values: Tensor
    scale: Tensor


def quantise(weight: Tensor, inputs: int, dtype: Dtype) -> Rounded:
    """Round a weight.

    Args:
        weight: float32.
        inputs: the dimension that the product sums over.
        dtype: of the scale, which is rounded first, so that the values are the best for it.
    """
    scale = (weight.abs().amax(inputs, keepdim=True) / _LARGEST).to(TORCH[dtype])
    divisor = scale.to(torch.float32)
    values = torch.where(divisor == 0, 0, weight / divisor).round().clamp(-_LARGEST, _LARGEST)
    return Rounded(values.to(torch.int8), scale)
