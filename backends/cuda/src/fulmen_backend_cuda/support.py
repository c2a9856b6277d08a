"""What a GPU's compute capability lets this backend do. Imports no torch.

| compute capability | example | |
|---|---|---|
| below 8.0 | T4, V100 | refused: no bfloat16, no FlashAttention |
| 8.0, 8.6, 8.9, 12.x | A100, A10, L40S, RTX 50 | bfloat16, float16; grouped products wait for the host |
| 9.0, 10.x | H100, B200 | grouped products on the device, and those of 8-bit floats |

The last line is what PyTorch 2.13 has kernels for (aten/src/ATen/native/cuda/GroupedBlas.cpp), not what the chips can.
"""

from __future__ import annotations

from dataclasses import dataclass

OLDEST = (8, 0)
_GROUPED_MAJORS = (9, 10)


@dataclass(frozen=True, slots=True)
class Support:
    """What can be done on a device.

    Attributes:
        kernels: whether kernels made for GPUs run; without, PyTorch's operations compute the same.
        grouped: grouped products need nothing of the host, so that a CUDA graph can hold them.
        fp8: there are grouped products of 8-bit floats.
        multiprocessors: how many programs run at once; 0 where that is not known.
    """

    kernels: bool
    grouped: bool
    fp8: bool
    multiprocessors: int = 0


#: Tensors on the CPU: every operation has a form there, 8-bit floats by way of wider ones.
EMULATED = Support(kernels=False, grouped=True, fp8=True)


def support_of(capability: tuple[int, int], multiprocessors: int = 0) -> Support:
    """The support of a GPU with this compute capability (major, minor)."""
    grouped = capability[0] in _GROUPED_MAJORS
    return Support(kernels=True, grouped=grouped, fp8=grouped, multiprocessors=multiprocessors)


def why_too_old(name: str, capability: tuple[int, int]) -> str:
    """Why a GPU cannot be used at all, or an empty text."""
    if capability >= OLDEST:
        return ""
    return (
        f"{name} has compute capability {_dotted(capability)}, and bfloat16 and FlashAttention need {_dotted(OLDEST)}"
    )


def why_no_fp8(name: str, capability: tuple[int, int]) -> str:
    """Why a GPU multiplies no 8-bit floats in groups, or an empty text."""
    if capability[0] in _GROUPED_MAJORS:
        return ""
    return f"{name} has compute capability {_dotted(capability)}, and grouped products of 8-bit floats need 9.0 or 10.x"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
