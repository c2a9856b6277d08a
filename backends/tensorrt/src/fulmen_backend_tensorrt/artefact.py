"""The artefact of both formats: what lies in the folder, for which devices and limits it was built. Torch-free.

| file | what |
|---|---|
| `decode.onnx`, `prefill.onnx` | the graphs: one token of many sequences, many tokens of one |
| `weights.data` | their weights, shared |
| `experts.data` | the experts, which are inputs of both graphs |
| `decode-HASH.engine`, `prefill-HASH.engine` | what TensorRT built of them; HASH is of all that went in |
| `timing.cache` | what the builder measured, if it measures: the next export of the folder starts from it |
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fulmen_backend_tensorrt.capacities import Capacities
from fulmen_backend_tensorrt.products import PRODUCTS
from fulmen_core.errors import CorruptArtefact
from fulmen_core.export.manifest import Manifest, artefact_format, read_manifest
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import load_config
from fulmen_core.model.layer_plan import LayerPlan

Phase = Literal["decode", "prefill"]
PHASES: tuple[Phase, Phase] = ("decode", "prefill")

WEIGHTS_FILE = "weights.data"
EXPERTS_FILE = "experts.data"
TIMING_FILE = "timing.cache"

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


class StoredTensor(BaseModel):
    """Where a tensor lies in `experts.data`."""

    model_config = ConfigDict(frozen=True)

    dtype: Literal["float32", "float16", "bfloat16", "int8"]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Its size."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


class EngineManifest(Manifest):
    """What `fulmen_artefact.json` says beyond `Manifest`.

    Attributes:
        tensorrt_version: of the builder; engines run on no other.
        compute_capabilities: of the devices that the engines were built for, e.g. "8.9"; empty: all from Ampere on, for
            which TensorRT-RTX makes portable engines.
        max_sequences: rows of one decoding run. max_context: tokens of one sequence. chunk: tokens of a prefill run.
        engines: file of each phase. build_seconds: of each phase; 0 for one that was taken over from an older export.
        experts: inputs that are read from `experts.data`.
    """

    tensorrt_version: str
    compute_capabilities: tuple[str, ...]
    max_sequences: int
    max_context: int
    chunk: int
    engines: Mapping[Phase, str]
    build_seconds: Mapping[Phase, float]
    experts: Mapping[str, StoredTensor]

    def capacities(self, config: ModelConfig) -> Capacities:
        """The capacities of its caches."""
        return Capacities.of(config, self.max_context, self.chunk)


def graph_file(phase: Phase) -> str:
    """The name of a phase's ONNX graph."""
    return f"{phase}.onnx"


def open_artefact(directory: Path) -> tuple[EngineManifest, ModelConfig]:
    """Read and check an artefact of either format.

    Raises:
        UserError: there is no such folder, or it is no artefact.
        CapabilityError: it has another format.
        CorruptArtefact: a file is missing, truncated or altered, or the config is another model's.
    """
    found = artefact_format(directory)
    format = found if found in PRODUCTS else next(iter(PRODUCTS))
    required = (*map(graph_file, PHASES), WEIGHTS_FILE, "config.json")
    manifest = read_manifest(directory, format, EngineManifest, required)
    for name in manifest.engines.values():
        if name not in manifest.files:
            raise CorruptArtefact(f"the artefact manifest does not list {name}", where=str(directory))
    config = load_config(directory)
    if not manifest.is_of(LayerPlan.of(config)):
        raise CorruptArtefact("the manifest and the config describe different layers", where=str(directory))
    return manifest, config


def map_experts(directory: Path, manifest: EngineManifest) -> dict[str, NDArray[np.uint8]]:
    """The bytes of each tensor of `experts.data`, mapped, not read."""
    if not manifest.experts:
        return {}
    mapped = np.memmap(directory / EXPERTS_FILE, np.uint8, mode="r")
    found = {name: mapped[one.offset : one.offset + one.nbytes] for name, one in manifest.experts.items()}
    for name, one in manifest.experts.items():
        if len(found[name]) != one.nbytes:
            raise CorruptArtefact(f"{name} does not lie in {EXPERTS_FILE}", where=str(directory))
    return found
