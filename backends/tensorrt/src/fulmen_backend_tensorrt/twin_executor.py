"""Runs the graphs of an artefact on a CPU with ONNX Runtime, in float32: what can be proved of them without a GPU.

Legend: R rows, B rows of one run, T tokens of each, K kv heads, C capacity, h head width, V vocabulary.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from fulmen_backend_tensorrt.artefact import PHASES, EngineManifest, Phase, graph_file, map_experts
from fulmen_backend_tensorrt.cache_shapes import cache_shapes
from fulmen_backend_tensorrt.float32_twin import float32_twin
from fulmen_core.model.config import ModelConfig

EXECUTED = "the ONNX twins in float32 with onnxruntime; the engines were built, not executed"

_NUMPY = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "int8": np.int8}


class TwinExecutor:
    """A `fulmen_backend_tensorrt.runner.Executor`. The caches are updated in place, as they are on the GPU."""

    def __init__(self, artefact: Path, manifest: EngineManifest, config: ModelConfig, rows: int) -> None:
        self._vocabulary = config.vocab_size
        self._sessions = {phase: _open(artefact / graph_file(phase)) for phase in PHASES}
        self._caches: dict[str, NDArray[np.float32]] = {
            name: np.zeros((rows, *shape), np.float32) for name, shape in cache_shapes(manifest, config).items()
        }
        self._experts = {
            name: _widen(data, manifest.experts[name].dtype).reshape(manifest.experts[name].shape)
            for name, data in map_experts(artefact, manifest).items()
        }
        self._binding = lru_cache(maxsize=64)(self._bind_caches)

    def run(
        self, phase: Phase, first: int, ids_BT: NDArray[np.int64], positions_BT: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """As `Executor.run`."""
        binding = self._binding(phase, first, len(ids_BT))
        logits_BV = np.empty((len(ids_BT), self._vocabulary), np.float32)
        _bind(binding.bind_input, "input_ids", np.ascontiguousarray(ids_BT))
        _bind(binding.bind_input, "position_ids", np.ascontiguousarray(positions_BT))
        _bind(binding.bind_output, "logits", logits_BV)
        self._sessions[phase].run_with_iobinding(binding)
        return logits_BV

    def copy_row(self, source: int, target: int) -> None:
        """As `Executor.copy_row`."""
        for array in self._caches.values():
            array[target] = array[source]

    def kv_bytes(self) -> int:
        """As `Executor.kv_bytes`."""
        return sum(array.nbytes for array in self._caches.values())

    def close(self) -> None:
        """As `Executor.close`."""
        self._binding.cache_clear()
        self._sessions.clear()
        self._caches.clear()
        self._experts.clear()

    def _bind_caches(self, phase: Phase, first: int, count: int) -> Any:
        binding = self._sessions[phase].io_binding()
        for name, array in self._caches.items():
            # input and output are the same memory: TensorScatter writes in place
            _bind(binding.bind_input, f"past_key_values.{name}", array[first : first + count])
            _bind(binding.bind_output, f"present.{name}", array[first : first + count])
        for name, array in self._experts.items():
            _bind(binding.bind_input, name, array)
        return binding


def _widen(data: NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    values: NDArray[Any] = data.view(_NUMPY[dtype])
    if dtype == "bfloat16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32) if dtype == "float16" else values


def _bind(bind: Any, name: str, array: NDArray[Any]) -> None:
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _open(graph: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 0
    options.log_severity_level = 3
    # else products with weights in 8 bits would round what they are multiplied by, too
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with TemporaryDirectory(prefix="fulmen-twin-") as folder:  # as external data: a graph that held them ends at 2 GB
        path = Path(folder) / graph.name
        onnx.save_model(float32_twin(onnx.load(graph)), path, save_as_external_data=True, location="weights.data")
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
