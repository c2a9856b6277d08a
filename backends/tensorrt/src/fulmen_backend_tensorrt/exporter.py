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

import onnx

from fulmen_backend_tensorrt.artefact import (
    EXPERTS_FILE,
    PHASES,
    TIMING_FILE,
    WEIGHTS_FILE,
    EngineManifest,
    Phase,
    StoredTensor,
    graph_file,
    open_artefact,
)
from fulmen_backend_tensorrt.build import build_engine, check_capabilities
from fulmen_backend_tensorrt.capacities import Capacities
from fulmen_backend_tensorrt.decoder import write_decoder
from fulmen_backend_tensorrt.devices import find_devices
from fulmen_backend_tensorrt.engine_spec import EngineSpec, profile_of
from fulmen_backend_tensorrt.graph_writer import ELEMENT, WeightFile
from fulmen_backend_tensorrt.mixture import Mixture, expert_tensors
from fulmen_backend_tensorrt.products import PRODUCTS, Product
from fulmen_backend_tensorrt.runner import EngineRunner
from fulmen_core.artefacts import MANIFEST_FILE, check_replaceable, is_artefact
from fulmen_core.backend import Dtype
from fulmen_core.errors import UserError
from fulmen_core.export.checkpoint_reference import ask_checkpoint
from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.manifest import LayerInfo, TensorInfo, hash_files
from fulmen_core.export.model_card import write_card
from fulmen_core.export.options import ExportOptions
from fulmen_core.export.reference import Reference
from fulmen_core.files import atomic_directory, atomic_write_json, hash_file, hash_tree
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.transformer import Transformer

#: In what form the experts are written: few tokens read the chosen ones, many read all.
MIXTURES: Mapping[Phase, Mixture] = {"decode": "gather", "prefill": "dense"}

_COPIED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_TOOLS = ("fulmen-backend-tensorrt", "torch", "onnx")
_DTYPE_NAMES = {element: name for name, element in ELEMENT.items()} | {onnx.TensorProto.INT64: "int64"}


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
            honours=("max_sequences", "max_context", "max_step_tokens", "compute_capabilities"),
        )
        module = importlib.import_module(self.product.module)
        present = tuple(device.compute_capability for device in find_devices().devices)
        capabilities = tuple(dict.fromkeys(options.compute_capabilities))
        check_capabilities(self.product, module, capabilities, present)
        if not self.product.ahead_of_time:
            capabilities = present[:1]
        network = load_model(model)
        config = network.config
        context = min(options.max_context or config.max_position_embeddings, config.max_position_embeddings)
        chunk = min(options.max_step_tokens, context)
        with atomic_directory(out) as work:
            graphs = _write_graphs(network, work, Capacities.of(config, context, chunk), options.dtype)
            experts = _write_experts(network, work, options.dtype)
            inputs, outputs = _tensors(graphs["decode"])
            engines: dict[Phase, str] = {}
            seconds: dict[Phase, float] = {}
            _take_over(out, work, TIMING_FILE)
            weights = hash_file(work / WEIGHTS_FILE)
            for phase in PHASES:
                graph = hashlib.sha256((hash_file(work / graph_file(phase)) + weights).encode())
                spec = EngineSpec(
                    module=self.product.module,
                    version=module.__version__,
                    graph=graph_file(phase),
                    graph_hash=graph.hexdigest(),
                    profile=profile_of(phase, inputs, options.max_sequences, chunk),
                    compute_capabilities=capabilities,
                    refit=not self.product.ahead_of_time,
                )
                engines[phase], seconds[phase] = spec.engine_file(phase), 0.0
                if not _take_over(out, work, engines[phase]):
                    seconds[phase] = build_engine(self.product, spec, phase, work)
            for name in _COPIED:
                if (model / name).is_file():
                    shutil.copyfile(model / name, work / name)
            ask_checkpoint(network, model, context).save(work)
            manifest = EngineManifest(
                format=self.name,
                model_hash=hash_tree(model),
                dtype=options.dtype,
                files={},
                inputs=inputs,
                outputs=outputs,
                layer_plan=LayerInfo.of(network.plan),
                tool_versions={name: version(name) for name in _TOOLS} | {self.name: module.__version__},
                tensorrt_version=module.__version__,
                compute_capabilities=capabilities,
                max_sequences=options.max_sequences,
                max_context=context,
                chunk=chunk,
                engines=engines,
                build_seconds=seconds,
                experts=experts,
            )
            write_card(work, manifest, [f"fulmen serve --model . --backend tensorrt --dtype {options.dtype}"])
            document = manifest.model_copy(update={"files": hash_files(work)}).model_dump(mode="json")
            atomic_write_json(work / MANIFEST_FILE, document)
        return document

    def check(self, out: Path, model: Path | None = None) -> Mapping[str, Any]:
        """Run the artefact on the answers that it holds, or on fresh ones of `model`.

        With a GPU that the engines were built for, they are run; without, their graphs are, in float32 on the CPU:
        ``executed`` says which.
        """
        manifest, _ = open_artefact(out)
        reference = (
            Reference.load(out) if model is None else ask_checkpoint(load_model(model), model, manifest.max_context)
        )
        open_executor, executed = _executor()
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


def _executor() -> tuple[Any, str]:
    found = find_devices()
    if found.devices:
        from fulmen_backend_tensorrt.engine_executor import EngineExecutor

        return EngineExecutor, f"the engines on {found.devices[0].name}"
    from fulmen_backend_tensorrt.twin_executor import EXECUTED, TwinExecutor

    return TwinExecutor, EXECUTED


def _write_graphs(
    network: Transformer, folder: Path, capacities: Capacities, dtype: Dtype
) -> dict[Phase, onnx.ModelProto]:
    tensors = network.state_dict()
    weights = WeightFile(folder / WEIGHTS_FILE)
    attention = "products" if dtype == "float32" else "operator"
    graphs = {}
    try:
        for phase in PHASES:
            graph = write_decoder(
                network.config, tensors.__getitem__, weights, capacities, dtype, MIXTURES[phase], attention
            )
            (folder / graph_file(phase)).write_bytes(graph.SerializeToString(deterministic=True))
            graphs[phase] = graph
    finally:
        weights.close()
    return graphs


def _write_experts(network: Transformer, folder: Path, dtype: Dtype) -> dict[str, StoredTensor]:
    tensors, places = network.state_dict(), {}
    names = [
        name for layer in network.plan if layer.ffn == "moe" for name in expert_tensors(network.config, layer.index)
    ]
    if not names:
        return {}
    file = WeightFile(folder / EXPERTS_FILE)
    try:
        for name in names:
            proto = file.add(name, lambda name=name: tensors[name], dtype)  # type: ignore[misc]
            offset = next(int(entry.value) for entry in proto.external_data if entry.key == "offset")
            places[name] = StoredTensor(dtype=dtype, shape=tuple(proto.dims), offset=offset)
    finally:
        file.close()
    return places


def _tensors(model: onnx.ModelProto) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    def info(value: onnx.ValueInfoProto) -> TensorInfo:
        kind = value.type.tensor_type
        shape = tuple(size.dim_param or size.dim_value for size in kind.shape.dim)
        return TensorInfo(name=value.name, dtype=_DTYPE_NAMES[kind.elem_type], shape=shape)

    return tuple(map(info, model.graph.input)), tuple(map(info, model.graph.output))


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
