"""The "openvino" exporter: a model directory becomes a folder that OpenVINO serves without PyTorch.

The folder holds OpenVINO's IR under the names that optimum-intel and OpenVINO GenAI look for, the model's config and
tokenizer files, its answers to check the artefact by, a card, and the manifest with a hash of every file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openvino

from fulmen_backend_openvino.artefact import FORMAT, GRAPH_FILE, WEIGHTS_FILE
from fulmen_backend_openvino.compiling import computes_in
from fulmen_backend_openvino.graph import build_graph
from fulmen_backend_openvino.runner import OpenVinoRunner
from fulmen_backend_openvino.weights import Weights
from fulmen_core.artefacts import check_replaceable
from fulmen_core.backend import Dtype
from fulmen_core.export.checkpoint_reference import ask_checkpoint
from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.finishing import finish
from fulmen_core.export.manifest import LayerInfo, Manifest, TensorInfo, read_manifest
from fulmen_core.export.options import ExportOptions
from fulmen_core.export.reference import Reference
from fulmen_core.files import atomic_directory, hash_tree
from fulmen_core.model.checkpoint import load_model
from fulmen_core.model.transformer import Transformer

_TOOLS = ("fulmen-backend-openvino", "torch", "openvino")
_DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "input_ids": ("batch", "length"),
    "position_ids": ("batch", "length"),
    "attention_mask": ("batch", "total"),
    "beam_idx": ("batch",),
    "logits": ("batch", "length"),
}


class OpenVinoExporter:
    """A `fulmen_core.backend.Exporter`."""

    name = FORMAT

    def export(self, model: Path, out: Path, options: ExportOptions) -> Mapping[str, Any]:
        """Write the artefact of the model directory `model` to `out`, whole or not at all, and return its manifest.

        Raises:
            UserError: `out` holds something that is no artefact; `model` is no model directory.
            CapabilityError: an option is not honoured.
            CorruptArtefact: the model's weights are damaged.
        """
        check_replaceable(out)
        options.check(FORMAT, dtypes=("float32", "bfloat16", "float16"), quantizations=("int8", "int4"))
        network = load_model(model)
        with atomic_directory(out) as work:
            inputs, outputs = _write_graph(network, options, work)
            ask_checkpoint(network, model).save(work)
            manifest = Manifest(
                format=FORMAT,
                model_hash=hash_tree(model),
                dtype=options.dtype,
                quantize=options.quantize,
                files={},
                inputs=inputs,
                outputs=outputs,
                layer_plan=LayerInfo.of(network.plan),
                tool_versions={name: version(name) for name in _TOOLS},
            )
            return finish(work, model, manifest, ["fulmen serve --model . --backend openvino"])

    def check(self, out: Path, model: Path | None = None) -> Mapping[str, Any]:
        """Run the artefact on the answers that it holds, or on fresh ones of `model`.

        Where the CPU does not compute in the artefact's dtype, arithmetic is float32, and ``executed`` says so.
        """
        manifest = read_manifest(out, FORMAT, Manifest, (GRAPH_FILE, WEIGHTS_FILE))
        dtype: Dtype = manifest.dtype if computes_in(manifest.dtype) else "float32"
        reference = Reference.load(out) if model is None else ask_checkpoint(load_model(model), model)
        runner = OpenVinoRunner(out, limits_for(reference), dtype)
        try:
            found = compare(runner, reference)
        finally:
            runner.close()
        if dtype != manifest.dtype:
            found["executed"] = f"in float32, as this CPU does not compute in {manifest.dtype}"
        return found


def _write_graph(
    network: Transformer, options: ExportOptions, folder: Path
) -> tuple[Sequence[TensorInfo], Sequence[TensorInfo]]:
    graph = build_graph(network, Weights(options.dtype, options.quantize))
    openvino.serialize(graph, folder / GRAPH_FILE, folder / WEIGHTS_FILE)
    return [_info(value) for value in graph.inputs], [_info(value) for value in graph.outputs]


def _info(value: Any) -> TensorInfo:
    name = value.get_any_name()
    names = iter(_DIMENSIONS[name])
    shape = tuple(next(names) if part.is_dynamic else part.get_length() for part in value.get_partial_shape())
    return TensorInfo(name=name, dtype=value.get_element_type().to_dtype().name, shape=shape)
