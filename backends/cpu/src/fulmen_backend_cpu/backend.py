"""The CPU backend: what it can do, and where each part of it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.backend import Capabilities, Dtype, KVDtype, Quantization, TrainPlan, TrainProgram
from fulmen_core.errors import CapabilityError
from fulmen_core.refusals import require
from fulmen_core.runner import EngineLimits, Runner

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)


class CpuBackend:
    """A `fulmen_core.backend.Backend`. Torch is imported by the parts, when one is asked for."""

    name = "cpu"

    def capabilities(self) -> Capabilities:
        """Training, and serving of checkpoints, in float32 and bfloat16; no CPU we know is fast in float16.

        Int8 weights and int8 caches need the native kernels, thus a C++ compiler.
        """
        return Capabilities(
            train=True,
            serve=True,
            formats=("checkpoint",),
            train_dtypes=("float32", "bfloat16"),
            serve_dtypes=("float32", "bfloat16"),
            quantizations=("int8",),
            kv_dtypes=("float32", "bfloat16", "int8"),
            embed=True,
            adapters=True,
        )

    def prepare_training(self, model: nn.Module, plan: TrainPlan) -> TrainProgram:
        """Choose precision and expert implementation for `model`, and compile it if the plan says so.

        Raises:
            CapabilityError: the plan names a precision, or a kind of experts, that the CPU does not train in.
        """
        from fulmen_backend_cpu.training import CpuTrainProgram

        require(self.name, "train in", plan.dtype, ("auto", *self.capabilities().train_dtypes))
        require(self.name, "train experts in", plan.experts, ("auto", "grouped", "dense"))
        return CpuTrainProgram(model, plan)

    def load_runner(
        self,
        model: Path,
        limits: EngineLimits,
        dtype: Dtype = "float32",
        *,
        quantize: Quantization | None = None,
        kv_dtype: KVDtype | None = None,
    ) -> Runner:
        """Load a model directory for serving: on the native kernels, or on PyTorch where those cannot be had.

        The runner's `choices` say which it became and why.

        Raises:
            CapabilityError: the CPU does not serve in `dtype`; or int8 is asked for, and the native kernels cannot be
                had.
            CorruptArtefact: the directory is not a whole model.
        """
        from fulmen_backend_cpu.native_runner import NativeRunner
        from fulmen_backend_cpu.runner import CpuRunner
        from fulmen_core.native_build import NativeUnavailable

        can = self.capabilities()
        require(self.name, "serve in", dtype, can.serve_dtypes)
        if quantize is not None:
            require(self.name, "quantise to", quantize, can.quantizations)
        if kv_dtype is not None:
            require(self.name, "keep keys and values in", kv_dtype, can.kv_dtypes)
        try:
            return NativeRunner(model, limits, dtype, quantize=quantize, kv_dtype=kv_dtype)
        except NativeUnavailable as error:
            reason = str(error)
        if quantize is not None or kv_dtype not in (None, dtype):
            what = f"int8 weights or a cache in {kv_dtype or dtype}"
            raise CapabilityError(
                f"{what} need the native kernels, and {reason}", remedy="install g++, or leave the option out"
            )
        logger.warning("serving on PyTorch, several times slower than the native kernels: %s", reason)
        return CpuRunner(model, limits, dtype, reason)
