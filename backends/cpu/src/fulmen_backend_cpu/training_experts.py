"""The selected experts over the compiled kernels, in the form that this processor is fastest with.

Legend: N tokens, D model width, E experts, F expert width, G = 2F.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fulmen_backend_cpu.training_expert_blocks import experts_in_blocks
from fulmen_backend_cpu.training_kernels import LANES, panels_are_faster
from fulmen_backend_cpu.training_library_experts import experts_by_library
from fulmen_core.model.experts import grouped
from fulmen_core.model.precision import product_dtype
from fulmen_core.model.router import Routing


def native_grouped(x_ND: Tensor, gate_up_EGD: Tensor, down_EFD: Tensor, routing: Routing) -> Tensor:
    """`fulmen_core.model.experts.grouped`, except that the result is float32 where autocast is on."""
    dtype = product_dtype(x_ND)
    inner, width = down_EFD.shape[1:]
    if dtype not in (torch.bfloat16, torch.float32) or width % LANES or inner % LANES or x_ND.dtype is torch.float64:
        return grouped(x_ND, gate_up_EGD, down_EFD, routing)
    arguments = x_ND, gate_up_EGD, down_EFD, routing.selected_NK, routing.weights_NK
    if dtype is torch.bfloat16 and gate_up_EGD.dtype is down_EFD.dtype is torch.float32 and panels_are_faster():
        return experts_in_blocks(*arguments)
    return experts_by_library(*arguments, dtype)
