"""Runs the engines of an artefact on a GPU: static caches in its memory, one CUDA graph for each shape of decoding.

The names of the bindings' objects are those of the classes, so that a test can hold every attribute that is used here
against the bindings that are installed: `trt`, `runtime`, `engine`, `context`, `runtime_config`.

Legend: B rows of one run, T tokens of each, K kv heads, C capacity, h head width, V vocabulary.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fulmen_backend_tensorrt.artefact import ITEM_BYTES, PHASES, EngineManifest, Phase, map_experts
from fulmen_backend_tensorrt.cache_shapes import cache_shapes
from fulmen_backend_tensorrt.cuda import Cuda
from fulmen_backend_tensorrt.devices import Devices, find_devices
from fulmen_backend_tensorrt.products import PRODUCTS
from fulmen_backend_tensorrt.trt_log import make_log
from fulmen_core.errors import CapabilityError, CorruptArtefact
from fulmen_core.model.config import ModelConfig

_GRAPHS = 32  # recorded at once; each is of one first row and one number of rows
_SCRATCH_ALIGNMENT = 256


class _Recorded(NamedTuple):
    """A CUDA graph, and the context whose state it holds: it must not be used for anything else."""

    graph: Any
    context: Any


class EngineExecutor:
    """A `fulmen_backend_tensorrt.runner.Executor`.

    Raises:
        CapabilityError: there is no GPU, it has another compute capability than the engines were built for, or TensorRT
            is not installed in the version that built them.
        CorruptArtefact: TensorRT cannot load an engine, or one does not update its caches in place.
    """

    def __init__(self, artefact: Path, manifest: EngineManifest, config: ModelConfig, rows: int) -> None:
        check_device(artefact, manifest, find_devices())
        trt = import_bindings(artefact, manifest)
        self._rows, self._vocabulary = rows, config.vocab_size
        self._row_bytes: dict[str, int] = {}
        self._shapes = cache_shapes(manifest, config)
        self._log = make_log(trt)
        self._trt, self._runtime = trt, trt.Runtime(self._log)
        self._kernels: Any = None
        self._cuda = Cuda()
        try:
            self._engines = {phase: self._load(artefact / manifest.engines[phase]) for phase in PHASES}
            self._reserve(artefact, manifest)
            self._prefill_context = self._new_context("prefill")
        except BaseException:
            self._cuda.close()
            raise
        self._recorded: OrderedDict[tuple[int, int], _Recorded] = OrderedDict()

    def run(
        self, phase: Phase, first: int, ids_BT: NDArray[np.int64], positions_BT: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """As `Executor.run`."""
        rows, tokens = ids_BT.shape
        self._ids[: ids_BT.size] = ids_BT.ravel()
        self._positions[: ids_BT.size] = positions_BT.ravel()
        if phase == "decode":
            self._cuda.replay(self._graph(first, rows))
        else:
            self._enqueue(self._prefill_context, first, rows, tokens)
        self._cuda.synchronize()
        logits_BV: NDArray[np.float32] = self._logits[:rows].copy()
        return logits_BV

    def copy_row(self, source: int, target: int) -> None:
        """As `Executor.copy_row`."""
        for name, address in self._caches.items():
            size = self._row_bytes[name]
            self._cuda.enqueue_copy(address + target * size, address + source * size, size)
        self._cuda.synchronize()

    def kv_bytes(self) -> int:
        """As `Executor.kv_bytes`."""
        return self._rows * sum(self._row_bytes.values())

    def close(self) -> None:
        """As `Executor.close`."""
        if "_engines" not in vars(self):
            return
        while self._recorded:
            self._cuda.forget(self._recorded.popitem()[1].graph)
        del self._prefill_context, self._kernels, self._engines, self._runtime, self._ids, self._positions, self._logits
        self._cuda.close()

    def _load(self, path: Path) -> Any:
        runtime = self._runtime
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise CorruptArtefact("TensorRT cannot load the engine", where=str(path), remedy=self._log.faults())
        for name in self._shapes:
            if engine.get_aliased_input_tensor(f"present.{name}") != f"past_key_values.{name}":
                raise CorruptArtefact(
                    f"the engine does not update cache {name} in place",
                    where=str(path),
                    remedy="export the model again",
                )
        return engine

    def _reserve(self, artefact: Path, manifest: EngineManifest) -> None:
        """All memory: caches, experts, inputs and outputs, and what the engines compute in, one after the other."""
        cuda, item = self._cuda, ITEM_BYTES[manifest.dtype]
        self._row_bytes = {name: prod(shape) * item for name, shape in self._shapes.items()}
        self._caches = {name: cuda.allocate(self._rows * size) for name, size in self._row_bytes.items()}
        self._experts: dict[str, int] = {}
        for name, data in map_experts(artefact, manifest).items():
            self._experts[name] = cuda.allocate(data.nbytes)
            cuda.upload(self._experts[name], data)
        entries = max(manifest.max_sequences, manifest.chunk)
        self._ids, self._positions = (cuda.pinned((entries,), np.int64) for _ in range(2))
        self._logits = cuda.pinned((manifest.max_sequences, self._vocabulary), np.float32)
        self._device_ids, self._device_positions = (cuda.allocate(entries * 8) for _ in range(2))
        self._device_logits = cuda.allocate(self._logits.nbytes)
        self._scratch_bytes = max(engine.device_memory_size_v2 for engine in self._engines.values())
        scratch = cuda.allocate(self._scratch_bytes + _SCRATCH_ALIGNMENT)
        self._scratch = scratch + -scratch % _SCRATCH_ALIGNMENT

    def _new_context(self, phase: Phase) -> Any:
        trt, engine = self._trt, self._engines[phase]
        runtime_config = engine.create_runtime_config()
        # contexts never run at the same time, so that they can share what they compute in
        runtime_config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if hasattr(runtime_config, "create_runtime_cache"):  # TensorRT-RTX compiles for the device, here and now
            self._kernels = self._kernels or runtime_config.create_runtime_cache()
            runtime_config.set_runtime_cache(self._kernels)
            if phase == "decode":  # a recorded graph keeps the kernels it was recorded with
                eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
                runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
        context = engine.create_execution_context(runtime_config)
        if context is None:
            raise RuntimeError(f"TensorRT makes no context for {phase}: {self._log.faults()}")
        context.set_device_memory(self._scratch, self._scratch_bytes)
        return context

    def _graph(self, first: int, rows: int) -> Any:
        """The recorded decoding of these rows. Recording needs a run before it, which writes what the graph will."""
        key = first, rows
        if key not in self._recorded:
            context = self._new_context("decode")
            self._enqueue(context, first, rows, 1)
            self._cuda.synchronize()
            graph = self._cuda.record(lambda: self._enqueue(context, first, rows, 1))
            self._recorded[key] = _Recorded(graph, context)
            if len(self._recorded) > _GRAPHS:
                self._cuda.forget(self._recorded.popitem(last=False)[1].graph)
        self._recorded.move_to_end(key)
        return self._recorded[key].graph

    def _enqueue(self, context: Any, first: int, rows: int, tokens: int) -> None:
        cuda, count = self._cuda, rows * tokens * 8
        cuda.enqueue_upload(self._device_ids, self._ids, count)
        cuda.enqueue_upload(self._device_positions, self._positions, count)
        bound = {"input_ids": self._device_ids, "position_ids": self._device_positions, "logits": self._device_logits}
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("input_ids", "position_ids"), (rows, tokens))
        for name, address in self._caches.items():
            past = f"past_key_values.{name}"
            bound[past] = bound[f"present.{name}"] = address + first * self._row_bytes[name]
            shapes[past] = (rows, *self._shapes[name])
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise RuntimeError(f"TensorRT refuses {name} of shape {shape}: {self._log.faults()}")
        for name, address in (bound | self._experts).items():
            if not context.set_tensor_address(name, address):
                raise RuntimeError(f"TensorRT refuses the memory of {name}: {self._log.faults()}")
        if not context.execute_async_v3(cuda.stream):
            raise RuntimeError(f"TensorRT cannot run a step: {self._log.faults()}")
        cuda.enqueue_download(self._logits, self._device_logits, rows * self._vocabulary * 4)


#: Where TensorRT-RTX 1.7 runs an engine that was built for no stated device: what it says when it is asked on an H200.
PORTABLE = ("8.0", "8.6", "8.9", "12.0", "12.1")
#: What it builds for, too, when it is stated.
OLDER = "7.5"


def check_device(artefact: Path, manifest: EngineManifest, found: Devices) -> None:
    """Refuse an artefact whose engines the GPU that was found cannot run, or a machine without one."""
    if not found.devices:
        raise CapabilityError(
            f"the engines in {artefact} cannot be run: {found.reason}",
            remedy="serve the checkpoint with --backend cpu, or this on a machine with an NVIDIA GPU",
        )
    have = found.devices[0].compute_capability
    built = manifest.compute_capabilities or PORTABLE
    if have in built:
        return
    again = f"export the model again with --compute-capability {have}"
    if PRODUCTS[manifest.format].ahead_of_time and have not in (OLDER, *PORTABLE):
        again = f"TensorRT-RTX builds nothing for {have}: export --to tensorrt there, or serve the checkpoint"
    raise CapabilityError(
        f"the engines in {artefact} were built for compute capability {' and '.join(built)}, and "
        f"{found.devices[0].name} has {have}",
        remedy=again,
    )


def import_bindings(artefact: Path, manifest: EngineManifest) -> Any:
    """The bindings of the product that built the engines, in the version that built them."""
    product = PRODUCTS[manifest.format]
    installed = product.installed()
    if installed is None:
        raise CapabilityError(
            f"the engines in {artefact} are of {product.title}, which is not installed", remedy=product.remedy
        )
    trt = importlib.import_module(product.module)
    if trt.__version__ != manifest.tensorrt_version:
        raise CapabilityError(
            f"the engines in {artefact} were built by {product.title} {manifest.tensorrt_version}, and "
            f"{trt.__version__} is installed",
            remedy=f"pip install {product.distribution}=={manifest.tensorrt_version}, or export the model again",
        )
    return trt
