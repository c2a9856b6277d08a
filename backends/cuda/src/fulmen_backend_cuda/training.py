"""Training on a GPU: what "auto" becomes, and the operations that a step is made of.

Decisions are functions of the device, the model's config and the plan, never of a timing: a resumed run decides alike.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from fulmen_backend_cuda.block_masks import build_block_mask
from fulmen_backend_cuda.fp8 import why_unaligned
from fulmen_backend_cuda.support import Support
from fulmen_backend_cuda.training_attention import attend
from fulmen_backend_cuda.training_fp8_experts import grouped_in_fp8
from fulmen_core.backend import TrainPlan
from fulmen_core.errors import CapabilityError
from fulmen_core.model.compilation import compile_or_keep
from fulmen_core.model.experts import grouped
from fulmen_core.model.operations import Operations
from fulmen_core.model.transformer import Transformer

logger = logging.getLogger(__name__)


class CudaTrainProgram:
    """A `fulmen_core.backend.TrainProgram`: float32 master weights on the device, bfloat16 products by autocast.

    Args:
        model: moved to the device in place, so that an optimizer made before or after sees the same parameters.
        plan: how it shall be run.
        device: a GPU, or the CPU, where PyTorch's operations stand in for the kernels.
        support: of the device.

    Attributes:
        model: call this, with tensors on the device; the given module, or a compiled wrapper of it.
        choices: what was chosen, each with its reason.

    Raises:
        CapabilityError: experts in 8-bit floats are asked for, and the device or the model's sizes do not allow them.
    """

    def __init__(self, model: nn.Module, plan: TrainPlan, device: torch.device, support: Support) -> None:
        self._device = device
        self._dtype = torch.float32 if plan.dtype == "float32" else torch.bfloat16
        dtype = str(self._dtype).removeprefix("torch.")
        why = "every supported GPU multiplies it on its matrix units" if plan.dtype == "auto" else "asked for"
        choices = {"device": str(device), "dtype": dtype, "dtype_reason": why}

        model.to(device)
        experts = "grouped" if plan.experts == "auto" else plan.experts
        transformers = [module for module in model.modules() if isinstance(module, Transformer)]
        for transformer in transformers:
            if experts == "fp8":
                _refuse_unaligned(transformer)
            transformer.use(
                Operations(
                    build_mask=build_block_mask,
                    attend=attend,
                    grouped=grouped_in_fp8 if experts == "fp8" else grouped,
                )
            )
            transformer.set_experts_implementation("dense" if experts == "dense" else "grouped")
        if transformers:
            choices |= {
                "experts": experts,
                "experts_reason": _why_experts(plan, support),
                "attention": "flash, and flex where a window or documents cut rows",
            }

        self.model, choices["compile"] = model, "no"
        if plan.compile and experts == "grouped" and dtype == "float32":
            choices["compile"] = "no: grouped matrix products compile in bfloat16 only"  # torch 2.13, meta registration
            logger.warning("training runs uncompiled: %s", choices["compile"].removeprefix("no: "))
        elif plan.compile:
            self.model, choices["compile"] = compile_or_keep(model, str(device))
        self.choices: Mapping[str, str] = choices

    def autocast(self) -> AbstractContextManager[Any]:
        """Autocast to bfloat16, or a context that does nothing."""
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._dtype is torch.bfloat16)


def _why_experts(plan: TrainPlan, support: Support) -> str:
    if plan.experts != "auto":
        return "asked for"
    return (
        "one kernel for all" if support.grouped else "one product an expert: only 9.0 and 10.x have one kernel for all"
    )


def _refuse_unaligned(model: Transformer) -> None:
    config = model.config
    if not config.num_experts:
        raise CapabilityError("the model has no experts to train in fp8", remedy='leave experts at "auto"')
    if reason := why_unaligned(config.hidden_size, config.moe_intermediate_size):
        raise CapabilityError(
            f"the model's experts cannot be trained in fp8: size {reason}", remedy='leave experts at "auto"'
        )
