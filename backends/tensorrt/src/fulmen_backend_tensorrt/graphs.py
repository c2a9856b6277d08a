"""Writes the two graphs of a model, their weights, and the experts beside them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from torch import Tensor

from fulmen_backend_tensorrt.artefact import EXPERTS_FILE, PHASES, WEIGHTS_FILE, Phase, StoredTensor, graph_file
from fulmen_backend_tensorrt.capacities import Capacities
from fulmen_backend_tensorrt.decoder import write_decoder
from fulmen_backend_tensorrt.graph_writer import ELEMENT, WeightFile
from fulmen_backend_tensorrt.mixture import ExpertTensor, Mixture, expert_tensors
from fulmen_backend_tensorrt.quantisation import pack, quantise
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.export.manifest import TensorInfo
from fulmen_core.model.transformer import Transformer

#: In what form the experts are written: few tokens read the chosen ones, many read all.
MIXTURES: Mapping[Phase, Mixture] = {"decode": "gather", "prefill": "dense"}

_DTYPE_NAMES = {element: name for name, element in ELEMENT.items()} | {onnx.TensorProto.INT64: "int64"}


class Graphs(NamedTuple):
    """What was written: inputs and outputs, the same of both graphs, and which of the inputs lie in `experts.data`."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    experts: dict[str, StoredTensor]


def write_graphs(
    network: Transformer,
    folder: Path,
    capacities: Capacities,
    dtype: Dtype,
    quantize: Quantization | None = None,
    ranges: Mapping[str, float] | None = None,
) -> Graphs:
    """Write the graphs of `network` into a folder that is being made into an artefact.

    Args:
        network: in float32.
        folder: of the artefact.
        capacities: of the caches.
        dtype: of weights, caches and arithmetic.
        quantize: of the matrices; norms, routers and the embedding's rows stay as they are.
        ranges: for FP8, from `fulmen_backend_tensorrt.calibration.input_ranges`.
    """
    tensors = network.state_dict()
    weights = WeightFile(folder / WEIGHTS_FILE)
    try:
        for phase in PHASES:
            graph = write_decoder(
                network.config, tensors.__getitem__, weights, capacities, dtype, MIXTURES[phase], quantize, ranges
            )
            (folder / graph_file(phase)).write_bytes(graph.SerializeToString(deterministic=True))
    finally:
        weights.close()
    return Graphs(
        tuple(map(_info, graph.graph.input)),
        tuple(map(_info, graph.graph.output)),
        _write_experts(network, folder, dtype, quantize),
    )


def _write_experts(
    network: Transformer, folder: Path, dtype: Dtype, quantize: Quantization | None
) -> dict[str, StoredTensor]:
    tensors, places = network.state_dict(), {}
    mixtures = [layer.index for layer in network.plan if layer.ffn == "moe"]
    if not mixtures:
        return {}

    def load(one: ExpertTensor) -> Tensor:
        weight: Tensor = tensors[one.source]
        if not one.part:
            return weight
        rounded = quantise(weight, one.inputs, dtype, one.form)
        if one.part == "scale":
            return rounded.scale
        packed: Tensor = pack(rounded.values, "halves").view(torch.int8) if one.form == "int4" else rounded.values
        return packed

    file = WeightFile(folder / EXPERTS_FILE)
    try:
        for index in mixtures:
            for name, one in expert_tensors(network.config, index, dtype, quantize).items():
                proto = file.add(name, partial(load, one), one.dtype)
                offset = next(int(entry.value) for entry in proto.external_data if entry.key == "offset")
                places[name] = StoredTensor(dtype=one.dtype, shape=tuple(proto.dims), offset=offset)
    finally:
        file.close()
    return places


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    shape = tuple(size.dim_param or size.dim_value for size in kind.shape.dim)
    return TensorInfo(name=value.name, dtype=_DTYPE_NAMES[kind.elem_type], shape=shape)
