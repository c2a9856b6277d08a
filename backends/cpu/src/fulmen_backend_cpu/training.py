"""Training on the CPU: what "auto" becomes, compiled kernels, and compilation by torch with a way back.

Decisions are functions of the processor and the model's config alone, never of a timing: a resumed run must decide
alike, or its weights would differ in the last bits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, cast

import torch
from torch import nn

from fulmen_backend_cpu.allocator import keep_freed_memory
from fulmen_backend_cpu.training_operations import native_operations
from fulmen_core.backend import TrainPlan
from fulmen_core.model.compilation import compile_or_keep
from fulmen_core.model.transformer import Transformer
from fulmen_core.native_build import NativeUnavailable

logger = logging.getLogger(__name__)

#: "dense" computes every expert for every token, E/K times the products of "grouped", without sorting rows. In
#: bfloat16 the two meet at this ratio; in float32 grouped always wins (docs/log.md, 2026-11-23).
DENSE_UP_TO = 2


def choose_dtype(capabilities: dict[str, Any]) -> tuple[Literal["float32", "bfloat16"], str]:
    """The precision of matrix products for a processor with these `torch.cpu.get_capabilities()`, and why."""
    for flag in ("amx_bf16", "avx512_bf16"):
        if capabilities.get(flag):
            return "bfloat16", f"the processor has {flag}"
    return "float32", "the processor multiplies no bfloat16"


def choose_experts(config: Any, dtype: str) -> tuple[Literal["grouped", "dense"], str]:
    """The formulation of the experts of a `ModelConfig`-like `config` for products in `dtype`, and why."""
    if not config.num_experts:
        return "grouped", "the model has no experts"
    ratio = config.num_experts / config.num_experts_per_tok
    if dtype == "bfloat16" and ratio <= DENSE_UP_TO:
        return "dense", f"{config.num_experts} experts, {config.num_experts_per_tok} a token, in bfloat16"
    return "grouped", f"{config.num_experts} experts, {config.num_experts_per_tok} a token, in {dtype}"


class CpuTrainProgram:
    """A `fulmen_core.backend.TrainProgram`: float32 master weights, bfloat16 products by autocast where they pay.

    Attributes:
        model: call this; it is the given module, or a compiled wrapper that shares its parameters.
        choices: what was chosen, each with its reason.
    """

    def __init__(self, model: nn.Module, plan: TrainPlan) -> None:
        capabilities = cast("dict[str, Any]", torch.cpu.get_capabilities())
        dtype, why = choose_dtype(capabilities) if plan.dtype == "auto" else (plan.dtype, "asked for")
        self._dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        choices = {"dtype": dtype, "dtype_reason": why}

        experts = ""
        set_experts = getattr(model, "set_experts_implementation", None)
        if set_experts is not None:
            experts, why = (
                choose_experts(model.config, dtype) if plan.experts == "auto" else (plan.experts, "asked for")
            )
            set_experts(experts)
            choices |= {"experts": experts, "experts_reason": why}

        self.model = model
        choices["compile"] = "no"
        if not plan.compile:
            choices["kernels"] = use_kernels(model)
        choices["allocator"] = "keeps freed memory" if keep_freed_memory() else "the system's"
        if plan.compile and experts == "grouped" and dtype == "float32":
            choices["compile"] = "no: grouped matrix products compile in bfloat16 only"  # torch 2.13, meta registration
            logger.warning("training runs uncompiled: %s", choices["compile"].removeprefix("no: "))
        elif plan.compile:
            self.model, choices["compile"] = compile_or_keep(model)
        self.choices: Mapping[str, str] = choices

    def autocast(self) -> AbstractContextManager[Any]:
        """Autocast to bfloat16, or a context that does nothing."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self._dtype == torch.bfloat16)


def use_kernels(model: nn.Module) -> str:
    """Have the transformers in `model` compute with the compiled kernels; "native", or why they stay with torch's."""
    transformers = [module for module in model.modules() if isinstance(module, Transformer)]
    if not transformers:
        return "torch: the model is not one of ours"
    try:
        operations = native_operations()
    except NativeUnavailable as error:
        logger.warning("training runs without compiled kernels, slower: %s", error)
        return f"torch: {error}"
    for transformer in transformers:
        transformer.use(operations)
    return "native"
