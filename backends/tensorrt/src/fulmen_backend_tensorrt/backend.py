"""The tensorrt backend: it serves artefacts on an NVIDIA GPU and does nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_backend_tensorrt.products import PRODUCTS
from fulmen_core.backend import Capabilities, Dtype, KVDtype, Quantization, TrainPlan, TrainProgram
from fulmen_core.errors import CapabilityError
from fulmen_core.refusals import refuse_adapters
from fulmen_core.runner import EngineLimits, Runner

if TYPE_CHECKING:
    from torch import nn


class TensorRTBackend:
    """A `fulmen_core.backend.Backend`. It needs NumPy, cuda-bindings and TensorRT; PyTorch is never imported."""

    name = "tensorrt"

    def capabilities(self) -> Capabilities:
        """Serving of both formats, in the dtype that an artefact was exported in."""
        return Capabilities(serve=True, formats=tuple(PRODUCTS), serve_dtypes=("float16", "bfloat16", "float32"))

    def prepare_training(self, model: nn.Module, plan: TrainPlan) -> TrainProgram:
        """Refuse: TensorRT trains nothing."""
        del model, plan
        raise CapabilityError("the tensorrt backend does not train", remedy="train with the cpu or cuda backend")

    def load_runner(
        self,
        model: Path,
        limits: EngineLimits,
        dtype: Dtype = "float32",
        *,
        quantize: Quantization | None = None,
        kv_dtype: KVDtype | None = None,
    ) -> Runner:
        """Load an artefact that `fulmen export --to tensorrt-rtx` or `--to tensorrt` wrote.

        Raises:
            CapabilityError: `model` is a checkpoint or an artefact of another format or dtype, or was built for other
                devices or by another version, or something is asked for that is decided at the export; or there is no
                GPU.
            CorruptArtefact: a file of the artefact is missing, truncated or altered.
        """
        from fulmen_backend_tensorrt.artefact import open_artefact
        from fulmen_backend_tensorrt.engine_executor import EngineExecutor
        from fulmen_backend_tensorrt.runner import EngineRunner

        manifest, _ = open_artefact(model)
        if dtype != manifest.dtype:
            raise CapabilityError(
                f"the artefact in {model} computes in {manifest.dtype}, not in {dtype}",
                remedy=f"serve it with --dtype {manifest.dtype}, or export it again",
            )
        if (quantize or manifest.quantize) != manifest.quantize or kv_dtype not in (None, manifest.dtype):
            raise CapabilityError(
                "the tensorrt backend neither quantises nor chooses the cache's dtype on loading",
                remedy="leave the option out",
            )
        refuse_adapters(self.name, limits)
        return EngineRunner(model, limits, EngineExecutor)
