"""The backend: what it can do, as data, and the refusal of everything else by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.backend import Capabilities, Dtype, KVDtype, Quantization, TrainPlan, TrainProgram
from fulmen_core.errors import CapabilityError
from fulmen_core.refusals import refuse_adapters, require
from fulmen_core.runner import EngineLimits, Runner

if TYPE_CHECKING:
    from torch import nn


class AcmeBackend:
    """A `fulmen_core.backend.Backend`. What is imported here is imported when the backend is picked."""

    name = "acme"

    def capabilities(self) -> Capabilities:
        """Serving of checkpoints in float32 and bfloat16. What is not listed is never asked for."""
        return Capabilities(serve=True, formats=("checkpoint",), serve_dtypes=("float32", "bfloat16"))

    def prepare_training(self, model: nn.Module, plan: TrainPlan) -> TrainProgram:
        """Refuse: it does not train."""
        del model, plan
        raise CapabilityError("the acme backend does not train", remedy="train with --backend cpu")

    def load_runner(
        self,
        model: Path,
        limits: EngineLimits,
        dtype: Dtype = "float32",
        *,
        quantize: Quantization | None = None,
        kv_dtype: KVDtype | None = None,
    ) -> Runner:
        """Load a model directory for serving.

        Raises:
            CapabilityError: a dtype, quantisation or adapter that `capabilities` does not list.
            UserError, CorruptArtefact: the directory is not a whole model.
        """
        can = self.capabilities()
        require(self.name, "serve in", dtype, can.serve_dtypes)
        if quantize is not None:
            require(self.name, "quantise to", quantize, can.quantizations)
        if kv_dtype not in (None, dtype):
            require(self.name, "keep keys and values in", kv_dtype, can.kv_dtypes)
        refuse_adapters(self.name, limits)
        from acme_fulmen_backend.runner import AcmeRunner

        return AcmeRunner(model, limits, dtype)
