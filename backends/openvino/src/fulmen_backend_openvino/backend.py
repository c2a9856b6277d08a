"""The openvino backend: it serves artefacts and does nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_backend_openvino.artefact import FORMAT
from fulmen_core.backend import Capabilities, Dtype, KVDtype, Quantization, TrainPlan, TrainProgram
from fulmen_core.errors import CapabilityError
from fulmen_core.refusals import refuse_adapters, require
from fulmen_core.runner import EngineLimits, Runner

if TYPE_CHECKING:
    from torch import nn


class OpenVinoBackend:
    """A `fulmen_core.backend.Backend`. It needs NumPy and OpenVINO; PyTorch is never imported."""

    name = "openvino"

    def capabilities(self) -> Capabilities:
        """Serving of "openvino" artefacts, in the dtypes that this CPU computes in; weights are quantised on export."""
        from fulmen_backend_openvino.compiling import dtypes_here

        return Capabilities(
            serve=True,
            formats=(FORMAT,),
            serve_dtypes=dtypes_here(),
            kv_dtypes=("float32", "bfloat16", "float16", "int8"),
            embed=True,
        )

    def prepare_training(self, model: nn.Module, plan: TrainPlan) -> TrainProgram:
        """Refuse: OpenVINO trains nothing."""
        del model, plan
        raise CapabilityError("the openvino backend does not train", remedy="train with the cpu or cuda backend")

    def load_runner(
        self,
        model: Path,
        limits: EngineLimits,
        dtype: Dtype = "float32",
        *,
        quantize: Quantization | None = None,
        kv_dtype: KVDtype | None = None,
    ) -> Runner:
        """Load an artefact that `fulmen export --to openvino` wrote; weights stay in what they were exported in.

        Raises:
            CapabilityError: `model` is a checkpoint or an artefact of another format, this CPU does not compute in
                `dtype`, or a quantisation is chosen, or adapters are to be served.
            CorruptArtefact: a file of the artefact is missing, truncated or altered.
        """
        from fulmen_backend_openvino.runner import OpenVinoRunner

        if quantize is not None:
            raise CapabilityError(
                "the openvino backend does not quantise on loading",
                remedy=f"export the model with --quantize {quantize}, and load that",
            )
        if kv_dtype is not None:
            require(self.name, "keep keys and values in", kv_dtype, self.capabilities().kv_dtypes)
        refuse_adapters(self.name, limits)
        return OpenVinoRunner(model, limits, dtype, kv_dtype=kv_dtype)
