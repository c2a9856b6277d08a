"""The CPU backend: what it can do, and where each part of it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.backend import Capabilities, Dtype, TrainPlan, TrainProgram
from fulmen_core.errors import CapabilityError
from fulmen_core.runner import EngineLimits, Runner

if TYPE_CHECKING:
    from torch import nn


class CpuBackend:
    """A `fulmen_core.backend.Backend`. Torch is imported by the parts, when one is asked for."""

    name = "cpu"

    def capabilities(self) -> Capabilities:
        """Training, and serving of checkpoints, in float32 and bfloat16; no CPU we know is fast in float16."""
        return Capabilities(
            train=True,
            serve=True,
            formats=("checkpoint",),
            train_dtypes=("float32", "bfloat16"),
            serve_dtypes=("float32", "bfloat16"),
        )

    def prepare_training(self, model: nn.Module, plan: TrainPlan) -> TrainProgram:
        """Choose precision and expert implementation for `model`, and compile it if the plan says so.

        Raises:
            CapabilityError: the plan names a precision that the CPU does not train in.
        """
        from fulmen_backend_cpu.training import CpuTrainProgram

        self._require(plan.dtype, ("auto", *self.capabilities().train_dtypes), "train")
        return CpuTrainProgram(model, plan)

    def load_runner(self, model: Path, limits: EngineLimits, dtype: Dtype = "float32") -> Runner:
        """Load a model directory for serving.

        Raises:
            CapabilityError: the CPU does not serve in `dtype`.
            CorruptArtefact: the directory is not a whole model.
        """
        from fulmen_backend_cpu.runner import CpuRunner

        self._require(dtype, self.capabilities().serve_dtypes, "serve")
        return CpuRunner(model, limits, dtype)

    def _require(self, dtype: str, known: tuple[str, ...], verb: str) -> None:
        if dtype not in known:
            raise CapabilityError(
                f"the cpu backend does not {verb} in {dtype}", remedy=f"use one of {', '.join(known)}"
            )
