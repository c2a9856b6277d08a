"""The "onnx" exporter: a model directory becomes a folder that ONNX Runtime serves without PyTorch.

The folder holds the graph, its weights beside it (ONNX files end at 2 GB), the model's config and tokenizer files, a
`genai_config.json`, and the manifest with a hash of every file.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fulmen_backend_onnxruntime.artefact import FORMAT, GRAPH_FILE
from fulmen_backend_onnxruntime.genai_config import genai_config
from fulmen_backend_onnxruntime.graph import Graph, check_expressible
from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.artefacts import MANIFEST_FILE, check_replaceable
from fulmen_core.export.checkpoint_reference import ask_checkpoint
from fulmen_core.export.comparison import compare, limits_for
from fulmen_core.export.manifest import LayerInfo, Manifest, TensorInfo, cache_names, hash_files
from fulmen_core.export.model_card import write_card
from fulmen_core.export.options import ExportOptions
from fulmen_core.export.reference import Reference
from fulmen_core.files import atomic_directory, atomic_write_json, hash_tree
from fulmen_core.model.checkpoint import load_config, load_model
from fulmen_core.model.transformer import Transformer

#: RMSNormalization is an operator from here on: half the nodes of opset 20.
OPSET = 23

_COPIED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_TOOLS = ("fulmen-backend-onnxruntime", "torch", "onnx", "onnxscript", "onnxruntime")


class OnnxExporter:
    """A `fulmen_core.backend.Exporter`."""

    name = FORMAT

    def export(self, model: Path, out: Path, options: ExportOptions) -> Mapping[str, Any]:
        """Write the artefact of the model directory `model` to `out`, whole or not at all, and return its manifest.

        Raises:
            UserError: `out` holds something that is no artefact; `model` is no model directory.
            CapabilityError: the model makes a choice that the graph cannot express, or an option is not honoured.
            CorruptArtefact: the model's weights are damaged.
        """
        check_replaceable(out)
        options.check(FORMAT, dtypes=("float32",))
        check_expressible(load_config(model))
        network = load_model(model)
        with atomic_directory(out) as work:
            inputs, outputs = _write_graph(network, work / GRAPH_FILE)
            for name in _COPIED:
                if (model / name).is_file():
                    shutil.copyfile(model / name, work / name)
            atomic_write_json(work / "genai_config.json", genai_config(network.config))
            ask_checkpoint(network, model).save(work)
            manifest = Manifest(
                format=FORMAT,
                model_hash=hash_tree(model),
                dtype="float32",
                files={},
                inputs=inputs,
                outputs=outputs,
                layer_plan=LayerInfo.of(network.plan),
                tool_versions={name: version(name) for name in _TOOLS},
            )
            write_card(work, manifest, ["fulmen serve --model . --backend onnxruntime"])
            document = manifest.model_copy(update={"files": hash_files(work)}).model_dump(mode="json")
            atomic_write_json(work / MANIFEST_FILE, document)
        return document

    def check(self, out: Path, model: Path | None = None) -> Mapping[str, Any]:
        """Run the artefact on the answers that it holds, or on fresh ones of `model`."""
        reference = Reference.load(out) if model is None else ask_checkpoint(load_model(model), model)
        runner = OnnxRunner(out, limits_for(reference))
        try:
            return compare(runner, reference)
        finally:
            runner.close()


def _write_graph(network: Transformer, path: Path) -> tuple[Sequence[TensorInfo], Sequence[TensorInfo]]:
    config, owners = network.config, network.plan.cache_owners
    batch, length, total = torch.export.Dim("batch"), torch.export.Dim("length"), torch.export.Dim("total")
    capacities = {window: torch.export.Dim("window_capacity" if window else "capacity") for window in (None, 1)}
    heads, width = config.num_key_value_heads, config.head_dim
    # Sizes of 0 and 1 would be taken for constants, and one tensor given twice for one input.
    shapes = [(2, heads, 13 if owner.window else 11, width) for owner in owners]
    past = [(torch.zeros(shape), torch.zeros(shape)) for shape in shapes]
    cache_dims = [({0: batch, 2: capacities[owner.window and 1]},) * 2 for owner in owners]
    names = {
        "inputs": ["input_ids", "attention_mask", *_flat(cache_names("past_key_values", len(owners)))],
        "outputs": ["logits", *_flat(cache_names("present", len(owners)))],
    }
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            Graph(network).eval(),
            (torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64), past),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes={
                "input_ids": {0: batch, 1: length},
                "attention_mask": {0: batch, 1: total},
                "past_key_values": cache_dims,
            },
            input_names=names["inputs"],
            output_names=names["outputs"],
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    program.save(path, external_data=True)
    graph = program.model.graph
    return [_info(value) for value in graph.inputs], [_info(value) for value in graph.outputs]


def _info(value: Any) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)
    return TensorInfo(name=value.name, dtype=value.dtype.name.lower(), shape=shape)


def _flat(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [name for pair in pairs for name in pair]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says about itself (a missing torchvision, a deprecated call of its own)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
