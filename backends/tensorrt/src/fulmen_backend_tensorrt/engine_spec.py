"""What a builder is told: everything that an engine depends on, and the name that follows from it. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from fulmen_backend_tensorrt.artefact import Phase
from fulmen_core.export.manifest import TensorInfo

Shape = tuple[int, ...]


class Range(BaseModel):
    """Shapes of an input that an engine takes: the smallest, the one it is tuned for, the largest."""

    model_config = ConfigDict(frozen=True)

    smallest: Shape
    usual: Shape
    largest: Shape


class EngineSpec(BaseModel):
    """An order to the builder.

    Attributes:
        module: of the product. version: that must be installed.
        graph: name of the ONNX file. graph_hash: of it and of the weights that it refers to.
        profile: shapes of the inputs that vary.
        compute_capabilities: of the devices to build for; empty: what the product does by itself.
        refit: whether weights can be exchanged later.
    """

    model_config = ConfigDict(frozen=True)

    module: str
    version: str
    graph: str
    graph_hash: str
    profile: dict[str, Range]
    compute_capabilities: tuple[str, ...]
    refit: bool

    def engine_file(self, phase: Phase) -> str:
        """A name that another order never has."""
        order = json.dumps(self.model_dump(), sort_keys=True)
        return f"{phase}-{hashlib.sha256(order.encode()).hexdigest()[:24]}.engine"


def profile_of(phase: Phase, inputs: Sequence[TensorInfo], max_sequences: int, chunk: int) -> dict[str, Range]:
    """The shapes that the engine's limits call for.

    Decoding takes 1 to `max_sequences` rows of one token, a prompt one row of 1 to `chunk` tokens. TensorRT-RTX 1.7
    fails on a prefill engine whose batch can only be 1 ("there are uses before defs"): its profile goes to 2.
    """
    rows, length = (max_sequences, 1) if phase == "decode" else (1, chunk)
    sizes = {
        "batch": (1, rows, rows if phase == "decode" else 2),
        "length": (1, length, length),
    }

    def shape(tensor: TensorInfo, which: int) -> Shape:
        return tuple(size if isinstance(size, int) else sizes[size][which] for size in tensor.shape)

    return {
        tensor.name: Range(smallest=shape(tensor, 0), usual=shape(tensor, 1), largest=shape(tensor, 2))
        for tensor in inputs
        if any(isinstance(size, str) for size in tensor.shape)
    }


def write_spec(spec: EngineSpec, path: Path) -> None:
    """Write it for the child process that builds."""
    path.write_text(spec.model_dump_json(), encoding="utf-8")
