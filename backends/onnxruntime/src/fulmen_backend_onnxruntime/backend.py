"""The onnxruntime backend: it serves artefacts and does nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_backend_onnxruntime.artefact import DATA_FILE, FORMAT, GRAPH_FILE
from fulmen_core.backend import Capabilities, Dtype, KVDtype, Quantization, TrainPlan, TrainProgram
from fulmen_core.errors import CapabilityError
from fulmen_core.export.manifest import Manifest, read_manifest
from fulmen_core.refusals import refuse_adapters, require
from fulmen_core.runner import EngineLimits, Runner

if TYPE_CHECKING:
    from torch import nn


class OnnxRuntimeBackend:
    """A `fulmen_core.backend.Backend`. It needs NumPy and ONNX Runtime; PyTorch is never imported."""

    name = "onnxruntime"

    def capabilities(self) -> Capabilities:
        """Serving of "onnx" artefacts. What they were exported in is what they are served in; arithmetic is float32."""
        return Capabilities(
            serve=True,
            formats=(FORMAT,),
            serve_dtypes=("float32", "float16"),
            embed=True,
            options=("provider", "kernels"),
        )

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
        provider: str | None = None,
        kernels: str | None = None,
    ) -> Runner:
        """Load an artefact that `fulmen export --to onnx` wrote. `limits.threads` are those of the session.

        `dtype` may be the artefact's, or float32, in which every artefact computes; `quantize` the artefact's.
        `provider` is the execution provider, "cpu" or another that is installed; None: see `choose_provider`.
        `kernels` are "native" or "onnxruntime", for what is quantised; None: see `choose_kernels`.

        Raises:
            CapabilityError: `model` is a checkpoint or an artefact of another format, or of another dtype or
                quantisation, or a dtype of keys and values is chosen, or adapters are to be served, or the provider or
                the kernels are not to be had here.
            CorruptArtefact: a file of the artefact is missing, truncated or altered.
        """
        from fulmen_backend_onnxruntime.runner import OnnxRunner

        require(self.name, "serve in", dtype, self.capabilities().serve_dtypes)
        refuse_adapters(self.name, limits)
        runner = OnnxRunner(model, limits, provider, kernels)
        made = runner.manifest
        wanted = (("dtype", dtype, ("float32", made.dtype)), ("quantisation", quantize, (None, made.quantize)))
        for what, value, known in (*wanted, ("dtype of keys and values", kv_dtype, (None, made.dtype))):
            if value not in known:
                runner.close()
                raise CapabilityError(
                    f"the artefact in {model} has another {what} than {value}",
                    remedy="leave the option out, or export the model so",
                )
        return runner

    def placement(self, model: Path, *, provider: str | None = None, kernels: str | None = None) -> Mapping[str, str]:
        """Which provider would compute the artefact in `model`, why, how many nodes each, and with whose kernels: the
        graph is opened, nothing is compiled.

        Raises:
            CapabilityError: the provider or the kernels are not to be had here.
            CorruptArtefact: a file of the artefact is missing, truncated or altered.
        """
        from fulmen_backend_onnxruntime.native_operators import choose_kernels
        from fulmen_backend_onnxruntime.providers import choose_provider, nodes_by_provider
        from fulmen_backend_onnxruntime.session import open_session

        chosen = choose_provider(provider)
        manifest = read_manifest(model, FORMAT, Manifest, (GRAPH_FILE, DATA_FILE))
        computing = choose_kernels(kernels, chosen.name, quantized=manifest.quantize is not None)
        session = open_session(model / GRAPH_FILE, 1, chosen.name, packed=False)
        return {
            "provider": chosen.name,
            "why": chosen.reason,
            "nodes": nodes_by_provider(session),
        } | computing.described()
