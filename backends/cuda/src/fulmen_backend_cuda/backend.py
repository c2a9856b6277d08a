"""The CUDA backend: what it can do on a device, and where each part of it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_backend_cuda.driver import DriverUnavailable, ask_driver
from fulmen_backend_cuda.support import EMULATED, Support, support_of, why_no_fp8, why_too_old
from fulmen_core.backend import Capabilities, Dtype, KVDtype, Quantization, TrainPlan, TrainProgram
from fulmen_core.errors import CapabilityError
from fulmen_core.refusals import require
from fulmen_core.runner import EngineLimits, Runner

if TYPE_CHECKING:
    from torch import nn


class CudaBackend:
    """A `fulmen_core.backend.Backend`. Torch is imported by the parts, when one is asked for.

    Args:
        device: "cuda", the first GPU that the process sees; or "cpu", where PyTorch's operations stand in for every
            kernel: the same results, slowly, for those who want to look at the backend without a GPU.

    Raises:
        CapabilityError: there is no GPU, or it is too old.
    """

    name = "cuda"

    def __init__(self, device: str = "cuda") -> None:
        self._device = device
        self._support, self._why_no_fp8 = (EMULATED, "") if device == "cpu" else _inspect()

    def capabilities(self) -> Capabilities:
        """Training in bfloat16 or float32; serving in 16 bits or float32, with experts in 8 where the GPU can."""
        fp8: tuple[Quantization, ...] = ("fp8",) if self._support.fp8 else ()
        return Capabilities(
            train=True,
            serve=True,
            formats=("checkpoint",),
            train_dtypes=("bfloat16", "float32"),
            serve_dtypes=("bfloat16", "float16", "float32"),
            quantizations=fp8,
            train_quantizations=fp8,
            embed=True,
            adapters=True,
            options=("compile",),
        )

    def prepare_training(self, model: nn.Module, plan: TrainPlan) -> TrainProgram:
        """Move `model` to the GPU and have it compute with kernels for it, as the plan says.

        Raises:
            CapabilityError: the plan names a precision, or a kind of experts, that this GPU does not train in.
        """
        import torch

        from fulmen_backend_cuda.training import CudaTrainProgram

        require(self.name, "train in", plan.dtype, ("auto", *self.capabilities().train_dtypes))
        if plan.experts == "fp8":
            self._require_fp8("train experts in")
        return CudaTrainProgram(model, plan, torch.device(self._device), self._support)

    def load_runner(
        self,
        model: Path,
        limits: EngineLimits,
        dtype: Dtype = "float32",
        *,
        quantize: Quantization | None = None,
        kv_dtype: KVDtype | None = None,
        compile: str | None = None,
    ) -> Runner:
        """Load a model directory for serving. The runner's `choices` say what it uses and why.

        `compile` is "yes" or "no": whether torch compiles what is around attention, which takes some seconds before
        the first step and none at later starts; None: on a GPU.

        Raises:
            CapabilityError: this GPU does not serve so, or the model does not fit into its memory, or `compile` is
                something else.
            CorruptArtefact: the directory is not a whole model.
        """
        from fulmen_backend_cuda.runner import CudaRunner

        require(self.name, "serve in", dtype, self.capabilities().serve_dtypes)
        require(self.name, "take for compile", compile or "yes", ("yes", "no"))
        if kv_dtype not in (None, dtype):
            raise CapabilityError(
                f"the cuda backend keeps keys and values in the dtype it serves in, {dtype}, not in {kv_dtype}",
                remedy="leave the option out",
            )
        if quantize == "fp8":
            self._require_fp8("quantise to")
        elif quantize is not None:
            raise CapabilityError(
                f"the cuda backend does not quantise to {quantize}", remedy="use fp8, or leave the option out"
            )
        compiles = None if compile is None else compile == "yes"
        return CudaRunner(
            model, limits, dtype, quantize=quantize, device=self._device, support=self._support, compiles=compiles
        )

    def _require_fp8(self, verb: str) -> None:
        if not self._support.fp8:
            raise CapabilityError(
                f"the cuda backend does not {verb} fp8, as {self._why_no_fp8}", remedy="leave the option out"
            )


def _inspect() -> tuple[Support, str]:
    """The first GPU's support, and why it has no 8-bit floats."""
    try:
        gpu = ask_driver().gpus[0]
    except DriverUnavailable as error:
        raise CapabilityError(f"the cuda backend cannot be used: {error}") from error
    if reason := why_too_old(gpu.name, gpu.capability):
        raise CapabilityError(f"the cuda backend cannot be used: {reason}", remedy="use --backend cpu")
    return support_of(gpu.capability, gpu.multiprocessors), why_no_fp8(gpu.name, gpu.capability)
