"""The "onnx" exporter: a model directory becomes a folder that ONNX Runtime serves without PyTorch.

The folder holds the graph, its weights beside it (ONNX files end at 2 GB), the model's config and tokenizer files, a
`genai_config.json`, what the checkpoint answers to some prompts, a card, and the manifest with a hash of every file.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from fulmen_backend_onnxruntime.artefact import DATA_FILE, FORMAT, GRAPH_FILE
from fulmen_backend_onnxruntime.block_quantization import Bits
from fulmen_backend_onnxruntime.checkpoint_weights import CheckpointWeights
from fulmen_backend_onnxruntime.external_data import ExternalData
from fulmen_backend_onnxruntime.genai_config import genai_config
from fulmen_backend_onnxruntime.graph import DecoderGraph, check_expressible
from fulmen_backend_onnxruntime.products import WeightFormat
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_backend_onnxruntime.smoothing import Smoothing
from fulmen_core.artefacts import check_replaceable
from fulmen_core.backend import Quantization
from fulmen_core.errors import CapabilityError
from fulmen_core.export.checkpoint_reference import ask_checkpoint
from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.finishing import finish
from fulmen_core.export.manifest import LayerInfo, Manifest, TensorInfo
from fulmen_core.export.options import ExportOptions
from fulmen_core.export.reference import Reference
from fulmen_core.files import atomic_directory, atomic_write_json, hash_file, hash_tree
from fulmen_core.model.checkpoint import load_config, load_model
from fulmen_core.model.layer_plan import LayerPlan

_TOOLS = ("fulmen-backend-onnxruntime", "torch", "onnx", "onnxruntime")

#: Bits, blocks, the longest blocks, and whether outliers are smoothed: see the tables in the README.
_QUANTIZATIONS: dict[Quantization, tuple[Bits, int, int, bool]] = {
    "int8": (8, 64, 256, True),
    "int4": (4, 32, 32, False),
}


class OnnxExporter:
    """A `fulmen_core.backend.Exporter`."""

    name = FORMAT

    def export(self, model: Path, out: Path, options: ExportOptions) -> Mapping[str, Any]:
        """Write the artefact of the model directory `model` to `out`, whole or not at all, and return its manifest.

        Raises:
            UserError: `out` holds something that is no artefact; `model` is no model directory.
            CapabilityError: an option is not honoured, or not for this model.
            CorruptArtefact: the model's weights are damaged.
        """
        check_replaceable(out)
        form = _weight_format(options)
        config = load_config(model)
        check_expressible(config)
        weights = CheckpointWeights(model, config)
        model_hash = hash_tree(model)
        network = load_model(model)
        smoothing = Smoothing.of(network) if form.smooth else Smoothing.none()
        reference = ask_checkpoint(network, model)
        del network  # its memory is free while weights are rounded
        with atomic_directory(out) as work:
            with ExternalData(work / DATA_FILE) as data:
                graph = DecoderGraph(config, weights, smoothing, form, data).build({"fulmen.model_hash": model_hash})
            helper.set_model_props(
                graph, {"fulmen.model_hash": model_hash, "fulmen.weights_hash": hash_file(work / DATA_FILE)}
            )
            onnx.save_model(graph, work / GRAPH_FILE)
            atomic_write_json(work / "genai_config.json", genai_config(config))
            reference.save(work)
            manifest = Manifest(
                format=FORMAT,
                model_hash=model_hash,
                dtype=options.dtype,
                quantize=options.quantize,
                files={},
                inputs=tuple(_info(value) for value in graph.graph.input),
                outputs=tuple(_info(value) for value in graph.graph.output),
                layer_plan=LayerInfo.of(LayerPlan.of(config)),
                tool_versions={name: version(name) for name in _TOOLS},
            )
            return finish(work, model, manifest, ["fulmen serve --model . --backend onnxruntime"])

    def check(self, out: Path, model: Path | None = None) -> Mapping[str, Any]:
        """Run the artefact on the answers that it holds, or on fresh ones of `model`."""
        reference = Reference.load(out) if model is None else ask_checkpoint(load_model(model), model)
        runner = OnnxRunner(out, limits_for(reference))
        try:
            return compare(runner, reference)
        finally:
            runner.close()


def _weight_format(options: ExportOptions) -> WeightFormat:
    if options.dtype == "bfloat16":
        raise CapabilityError(
            "ONNX Runtime's CPU has neither products nor attention in bfloat16",
            remedy="choose --dtype float32 or float16, or --quantize int8",
        )
    options.check(FORMAT, dtypes=("float32", "float16"), quantizations=("int8", "int4"))
    if options.quantize is None:
        return WeightFormat(options.dtype)
    return WeightFormat(options.dtype, *_QUANTIZATIONS[options.quantize])


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(size.dim_param or size.dim_value for size in tensor.shape.dim)
    return TensorInfo(name=value.name, dtype=helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape=shape)
