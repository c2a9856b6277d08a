"""Compiles a graph for the CPU as it was asked for, every choice that changes numbers explicit. Imports no torch.

Left to itself OpenVINO computes in bfloat16 where the CPU can, and keeps caches in 8 bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import openvino
from openvino import properties
from openvino.properties import hint

from fulmen_core.backend import Dtype, KVDtype
from fulmen_core.errors import CapabilityError

_TYPES = {
    "float32": openvino.Type.f32,
    "bfloat16": openvino.Type.bf16,
    "float16": openvino.Type.f16,
    "int8": openvino.Type.u8,
}
#: Not float16, although a CPU may have it (AVX512-FP16): OpenVINO 2026.4 leaves attention with pages uncompiled in it.
_CAPABILITY: dict[Dtype, str] = {"float32": "FP32", "bfloat16": "BF16"}
#: Elements that share a scale where what quantised weights are multiplied by is rounded to 8 bits, too. Products of
#: several rows are two to three times as fast so; with wider groups hardly faster, and twice as far off.
ACTIVATION_GROUP = 32
#: What the attention kernels read and write beside arithmetic in the dtype itself.
_CACHES: dict[Dtype, tuple[KVDtype, ...]] = {
    "float32": ("float32", "float16", "int8"),
    "bfloat16": ("bfloat16", "int8"),
}
DEVICE = "CPU"


@cache
def core() -> openvino.Core:
    """Return the one that this process has, which stays.

    The CPU plugin of each core gives its thread a stack for signals, and when it goes puts back the one before. Of two
    that go in the order in which they came, the second puts back what the first has unmapped, and the next signal, a
    Ctrl-C, is a segmentation fault.
    """
    return openvino.Core()


def computes_in(dtype: Dtype) -> bool:
    """Whether OpenVINO computes in `dtype` on this CPU."""
    return _CAPABILITY.get(dtype) in core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


def dtypes_here() -> tuple[Dtype, ...]:
    """The dtypes that OpenVINO computes in on this CPU."""
    return tuple(dtype for dtype in _CAPABILITY if computes_in(dtype))


def compile_for_cpu(
    graph: openvino.Model, dtype: Dtype, kv_dtype: KVDtype, threads: int, *, quantized: bool
) -> openvino.CompiledModel:
    """Compile for one stream of requests.

    Args:
        graph: what is compiled.
        dtype: of arithmetic.
        kv_dtype: of keys and values.
        threads: 0 leaves the number to OpenVINO.
        quantized: whether weights are: what is multiplied by them is rounded to 8 bits then, where the CPU is fast so.

    Raises:
        CapabilityError: this CPU has no arithmetic in `dtype`, or the kernels no such cache beside it.
    """
    if not computes_in(dtype):
        raise CapabilityError(f"OpenVINO does not compute in {dtype} on this CPU", remedy="use float32")
    if kv_dtype not in _CACHES[dtype]:
        raise CapabilityError(
            f"OpenVINO does not keep keys and values in {kv_dtype} beside arithmetic in {dtype}",
            remedy=f"use {' or '.join(_CACHES[dtype])}",
        )
    config: dict[Any, Any] = {
        hint.inference_precision: _TYPES[dtype],
        hint.kv_cache_precision: _TYPES[kv_dtype],
        hint.dynamic_quantization_group_size: ACTIVATION_GROUP if quantized else 0,
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.enable_cpu_pinning: False,  # cores are shared with the engine's other processes
        properties.num_streams: 1,
    }
    if threads:
        config[properties.inference_num_threads] = threads
    return core().compile_model(graph, DEVICE, config)
