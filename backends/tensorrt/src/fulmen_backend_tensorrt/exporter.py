"""The exporters "tensorrt-rtx" and "tensorrt": a model directory becomes graphs, weights and engines.

The engines are built from the engine's limits in the options, in child processes. An engine that an older export of
the same folder holds, built from the same graph and weights by the same version for the same devices, is taken over.
"""

from __future__ import annotations

import hashlib
import importlib
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fulmen_backend_tensorrt.artefact import (
    PHASES,
    TIMING_FILE,
    WEIGHTS_FILE,
    EngineManifest,
    Phase,
    graph_file,
    open_artefact,
)
from fulmen_backend_tensorrt.build import build_engine, check_capabilities, check_fp8
from fulmen_backend_tensorrt.calibration import input_ranges
from fulmen_backend_tensorrt.capacities import Capacities
from fulmen_backend_tensorrt.devices import find_devices
from fulmen_backend_tensorrt.engine_executor import EngineExecutor, check_device
from fulmen_backend_tensorrt.engine_spec import EngineSpec, profile_of
from fulmen_backend_tensorrt.graphs import write_graphs
from fulmen_backend_tensorrt.products import PRODUCTS, Product
from fulmen_backend_tensorrt.runner import EngineRunner, OpenExecutor
from fulmen_backend_tensorrt.twin_executor import EXECUTED, TwinExecutor
from fulmen_core.artefacts import check_replaceable, is_artefact
from fulmen_core.errors import CapabilityError, UserError
from fulmen_core.export.checkpoint_reference import ask_checkpoint
from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.finishing import finish
from fulmen_core.export.manifest import LayerInfo, TensorInfo
from fulmen_core.export.options import ExportOptions
from fulmen_core.export.reference import Reference
from fulmen_core.files import atomic_directory, hash_file, hash_tree
from fulmen_core.model.checkpoint import load_model

_TOOLS = ("fulmen-backend-tensorrt", "torch", "onnx")


class EngineExporter:
    """A `fulmen_core.backend.Exporter` for one of the two products."""

    def __init__(self, product: Product) -> None:
        self.product, self.name = product, product.format

    def export(self, model: Path, out: Path, options: ExportOptions) -> Mapping[str, Any]:
        """Write the artefact of the model directory `model` to `out`, whole or not at all, and return its manifest.

        Raises:
            UserError: `out` holds something that is no artefact; `model` is no model directory; TensorRT cannot build.
            CapabilityError: an option cannot be honoured here.
            CorruptArtefact: the model's weights are damaged.
        """
        check_replaceable(out)
        options.check(
            self.name,
            dtypes=("float16", "bfloat16", "float32"),
            quantizations=("int8", "int4", "fp8"),
            honours=("max_sequences", "max_context", "max_step_tokens", "compute_capabilities"),
        )
        module = importlib.import_module(self.product.module)
        present = tuple(device.compute_capability for device in find_devices().devices)
        capabilities = tuple(dict.fromkeys(options.compute_capabilities))
        check_capabilities(self.product, module, capabilities, present)
        if not self.product.ahead_of_time:
            capabilities = present[:1]
        if options.quantize == "fp8":
            check_fp8(capabilities)
        network = load_model(model)
        config = network.config
        context = min(options.max_context or config.max_position_embeddings, config.max_position_embeddings)
        chunk = min(options.max_step_tokens, context)
        with atomic_directory(out) as work:
            capacities = Capacities.of(config, context, chunk)
            with input_ranges(network) as ranges:
                ask_checkpoint(network, model, context).save(work)
            graphs = write_graphs(network, work, capacities, options.dtype, options.quantize, ranges)
            specs = self._specs(work, graphs.inputs, options.max_sequences, chunk, capabilities, module.__version__)
            _take_over(out, work, TIMING_FILE)
            seconds: dict[Phase, float] = {}
            for phase, spec in specs.items():
                known = _take_over(out, work, spec.engine_file(phase))
                seconds[phase] = 0.0 if known else build_engine(self.product, spec, phase, work)
            manifest = EngineManifest(
                format=self.name,
                model_hash=hash_tree(model),
                dtype=options.dtype,
                quantize=options.quantize,
                files={},
                inputs=graphs.inputs,
                outputs=graphs.outputs,
                layer_plan=LayerInfo.of(network.plan),
                tool_versions={name: version(name) for name in _TOOLS} | {self.name: module.__version__},
                tensorrt_version=module.__version__,
                compute_capabilities=capabilities,
                max_sequences=options.max_sequences,
                max_context=context,
                chunk=chunk,
                engines={phase: spec.engine_file(phase) for phase, spec in specs.items()},
                build_seconds=seconds,
                experts=graphs.experts,
            )
            return finish(work, model, manifest, ["fulmen serve --model . --backend tensorrt"])

    def _specs(
        self,
        folder: Path,
        inputs: tuple[TensorInfo, ...],
        max_sequences: int,
        chunk: int,
        capabilities: tuple[str, ...],
        version: str,
    ) -> dict[Phase, EngineSpec]:
        weights = hash_file(folder / WEIGHTS_FILE)
        return {
            phase: EngineSpec(
                module=self.product.module,
                version=version,
                graph=graph_file(phase),
                graph_hash=hashlib.sha256((hash_file(folder / graph_file(phase)) + weights).encode()).hexdigest(),
                profile=profile_of(phase, inputs, max_sequences, chunk),
                compute_capabilities=capabilities,
                refit=not self.product.ahead_of_time,
            )
            for phase in PHASES
        }

    def check(self, out: Path, model: Path | None = None) -> Mapping[str, Any]:
        """Run the artefact on the answers that it holds, or on fresh ones of `model`.

        With a GPU that the engines were built for, they are run; without, their graphs are, in float32 on the CPU:
        ``executed`` says which, and why.
        """
        manifest, _ = open_artefact(out)
        reference = (
            Reference.load(out) if model is None else ask_checkpoint(load_model(model), model, manifest.max_context)
        )
        open_executor, executed = _executor(out, manifest)
        runner = EngineRunner(out, limits_for(reference), open_executor)
        try:
            return {**compare(runner, reference), "executed": executed}
        finally:
            runner.close()


def rtx_exporter() -> EngineExporter:
    """The exporter "tensorrt-rtx"."""
    return EngineExporter(PRODUCTS["tensorrt-rtx"])


def tensorrt_exporter() -> EngineExporter:
    """The exporter "tensorrt"."""
    return EngineExporter(PRODUCTS["tensorrt"])


def _executor(artefact: Path, manifest: EngineManifest) -> tuple[OpenExecutor, str]:
    found = find_devices()
    try:
        check_device(artefact, manifest, found)
    except CapabilityError as error:
        return TwinExecutor, f"{EXECUTED}: {found.reason or error.what}"
    return EngineExecutor, f"the engines on {found.devices[0].name}"


def _take_over(older: Path, work: Path, name: str) -> bool:
    """Copy a file of the artefact that is replaced, if it is whole."""
    if not is_artefact(older):
        return False
    try:
        manifest, _ = open_artefact(older)
    except UserError:
        return False
    if name not in manifest.files:
        return False
    shutil.copyfile(older / name, work / name)
    return True
