"""The compiled operations of a training step, as a model takes them."""

from __future__ import annotations

from fulmen_backend_cpu.training_attention import native_attend
from fulmen_backend_cpu.training_cross_entropy import native_cross_entropy
from fulmen_backend_cpu.training_experts import native_grouped
from fulmen_backend_cpu.training_kernels import load_kernels
from fulmen_backend_cpu.training_norm import native_norm_and_rotate, native_rms_norm
from fulmen_core.model.masks import first_keys
from fulmen_core.model.operations import Operations


def native_operations() -> Operations:
    """The operations over the compiled kernels; what these cannot do is left to torch, operation by operation.

    Raises:
        NativeUnavailable: the kernels cannot be compiled or loaded; the message says why.
    """
    load_kernels()
    return Operations(
        build_mask=first_keys,
        attend=native_attend,
        rms_norm=native_rms_norm,
        norm_and_rotate=native_norm_and_rotate,
        grouped=native_grouped,
        cross_entropy=native_cross_entropy,
    )
