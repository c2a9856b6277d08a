"""The operations of the network that a backend may compute in its own way, each with torch's way as the default.

A backend gives `Transformer.use` another `Operations`; results and gradients agree up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fulmen_core.model.attention import NormAndRotate, attend, norm_and_rotate
from fulmen_core.model.cross_entropy import CrossEntropy, cross_entropy
from fulmen_core.model.experts import grouped
from fulmen_core.model.masks import Mask, build_mask
from fulmen_core.model.norm import rms_norm
from fulmen_core.model.router import Routing


class Operations(NamedTuple):
    """Signatures and meanings are those of the defaults.

    Attributes:
        build_mask: makes the masks that `attend` of the same `Operations` takes.
        attend: softmax attention.
        rms_norm: may return autocast's dtype where autocast is on.
        norm_and_rotate: queries or keys as attention takes them.
        grouped: the selected experts' mixed outputs; may return float32 where autocast is on.
        cross_entropy: of a chunk of the head's logits.
    """

    build_mask: Callable[[int, int | None, Tensor | None, torch.device], Mask] = build_mask
    attend: Callable[[Tensor, Tensor, Tensor, Mask], Tensor] = attend
    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = rms_norm
    norm_and_rotate: NormAndRotate = norm_and_rotate
    grouped: Callable[[Tensor, Tensor, Tensor, Routing], Tensor] = grouped
    cross_entropy: CrossEntropy = cross_entropy
