"""The onnxruntime backend: it serves artefacts and does nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.backend import Capabilities, Dtype, KVDtype, Quantization, TrainPlan, TrainProgram
from fulmen_core.errors import CapabilityError
from fulmen_core.runner import EngineLimits, Runner

if TYPE_CHECKING:
    from torch import nn


class OnnxRuntimeBackend:
    """A `fulmen_core.backend.Backend`. It needs NumPy and ONNX Runtime; PyTorch is never imported."""

    name = "onnxruntime"

    def capabilities(self) -> Capabilities:
        """Serving of "onnx" artefacts in float32."""
        return Capabilities(serve=True, formats=("onnx",), serve_dtypes=("float32",))

    def prepare_training(self, model: nn.Module, plan: TrainPlan) -> TrainProgram:
        """Refuse: ONNX Runtime trains nothing here."""
        del model, plan
        raise CapabilityError("the onnxruntime backend does not train", remedy="train with the cpu or cuda backend")

    def load_runner(
        self,
        model: Path,
        limits: EngineLimits,
        dtype: Dtype = "float32",
        *,
        quantize: Quantization | None = None,
        kv_dtype: KVDtype | None = None,
    ) -> Runner:
        """Load an artefact that `fulmen export --to onnx` wrote. `limits.threads` are those of the session.

        Raises:
            CapabilityError: `model` is a checkpoint or an artefact of another format, or `dtype` is not float32, or a
                quantisation or a dtype of keys and values is chosen, or adapters are to be served.
            CorruptArtefact: a file of the artefact is missing, truncated or altered.
        """
        from fulmen_backend_onnxruntime.runner import OnnxRunner

        if dtype != "float32":
            raise CapabilityError(f"the onnxruntime backend does not serve in {dtype}", remedy="use float32")
        if quantize is not None or kv_dtype not in (None, "float32"):
            raise CapabilityError(
                "the onnxruntime backend neither quantises nor chooses the cache's dtype on loading",
                remedy="leave the option out",
            )
        if limits.adapters:
            raise CapabilityError(
                "the onnxruntime backend serves no adapters", remedy="serve the checkpoint with --backend cpu"
            )
        return OnnxRunner(model, limits)
