"""The compiled kernels as Python sees them: the C functions of ``native/api.cpp`` over ctypes.

ctypes gives up the interpreter's lock while a function runs, so that other threads go on.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

from fulmen_backend_cpu.native_sources import SERVING
from fulmen_core.native_build import NativeUnavailable, build_library


class Format(IntEnum):
    """How numbers are stored."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2


class MatrixRole(IntEnum):
    """What a weight is for."""

    QKV = 0
    OUT = 1
    ROUTER = 2
    DENSE_GATE_UP = 3
    DENSE_DOWN = 4
    EXPERT_GATE_UP = 5
    EXPERT_DOWN = 6
    HEAD = 7


class Product(IntEnum):
    """A product of a layer that an adapter may change: `fulmen::Product`."""

    QKV = 0
    OUT = 1
    GATE_UP = 2
    DOWN = 3


class VectorRole(IntEnum):
    """What a float32 vector is for."""

    ATTENTION_NORM = 0
    FFN_NORM = 1
    Q_NORM = 2
    K_NORM = 3
    ATTENTION_POST_NORM = 4
    FFN_POST_NORM = 5
    ROUTER_BIAS = 6
    NORM = 7
    COSINES = 8
    SINES = 9


class Shape(ctypes.Structure):
    """`fulmen::Shape`."""

    _fields_ = [
        *(
            (name, c_int32)
            for name in (
                *("vocab", "width", "layers", "heads", "kv_heads", "head_dim"),
                *("experts", "experts_per_token", "expert_width"),
                *("max_sequences", "max_context", "max_step_tokens", "caches"),
                *("slots", "pages", "page_tokens", "window_slack"),
                *("adapters", "adapter_rank"),
                *("weights", "kv"),
                *("tied", "qk_norm_whole", "attention_gate", "sigmoid_router", "normalise_weights"),
            )
        ),
        *((name, c_float) for name in ("eps", "router_scale", "embedding_scale", "clip_qkv")),
    ]


class LayerShape(ctypes.Structure):
    """`fulmen::LayerShape`."""

    _fields_ = [(name, c_int32) for name in ("window", "cache", "owns_kv", "rotates", "mixture", "dense_width")]


@dataclass(frozen=True, slots=True)
class Features:
    """What the compiled kernels use of this processor."""

    bfloat16: bool  # AVX512-BF16 products
    int8: bool  # AVX512-VNNI products
    amx: bool  # matrix units, built in and found right
    amx_wrong: bool  # built in, but refused by the system or wrong
    avx512: bool

    def __str__(self) -> str:
        names = {"avx512": self.avx512, "avx512_bf16": self.bfloat16, "avx512_vnni": self.int8, "amx_bf16": self.amx}
        return " ".join(name for name, there in names.items() if there) or "portable vectors"


@cache
def load_library() -> ctypes.CDLL:
    """Compile if needed, load, and declare every function.

    Raises:
        NativeUnavailable: the kernels cannot be compiled or loaded; the message says why.
    """
    return open_library(build_library(SERVING))


def open_library(path: Path) -> ctypes.CDLL:
    """Load the library at `path`.

    Raises:
        NativeUnavailable: it cannot be loaded.
    """
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailable(f"the compiled kernels cannot be loaded: {error}") from error
    signatures: dict[str, tuple[object, list[object]]] = {
        "fulmen_error": (ctypes.c_char_p, []),
        "fulmen_features": (c_int, []),
        "fulmen_new": (c_void_p, [POINTER(Shape), POINTER(LayerShape), c_int]),
        "fulmen_delete": (None, [c_void_p]),
        "fulmen_kv_bytes": (c_int64, [c_void_p]),
        "fulmen_weight_bytes": (c_int64, [c_void_p]),
        "fulmen_stalls": (c_int64, [c_void_p]),
        "fulmen_set_matrix": (
            c_int,
            [c_void_p, *[c_int] * 3, c_void_p, c_int, c_int64, c_int64, c_void_p, c_int, c_int],
        ),
        "fulmen_set_vector": (c_int, [c_void_p, c_int, c_int, c_void_p, c_int64]),
        "fulmen_set_embedding": (c_int, [c_void_p, c_void_p, c_int, c_int64]),
        "fulmen_set_delta": (
            c_int,
            [c_void_p, *[c_int] * 3, c_void_p, c_void_p, c_int, c_int, c_void_p, c_int],
        ),
        "fulmen_drop_adapter": (None, [c_void_p, c_int]),
        "fulmen_adapter_bytes": (c_int64, [c_void_p]),
        "fulmen_step": (c_int, [c_void_p, c_int, *[c_void_p] * 3, c_int, c_void_p]),
        "fulmen_draw": (c_int, [c_void_p, c_int, c_void_p, c_int, *[c_void_p] * 3]),
        "fulmen_copy_slot": (None, [c_void_p, c_int, c_int]),
        "fulmen_copy_page": (None, [c_void_p, c_int, c_int]),
        "fulmen_product": (c_int64, [*[c_int] * 5, *[c_void_p] * 3, c_int]),
        "fulmen_poison": (None, [c_void_p, c_int, c_int]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def check(library: ctypes.CDLL, failed: int) -> None:
    """Raise what `library` complains of, given a function's result.

    Raises:
        MemoryError: `failed` is not 0.
    """
    if failed:
        raise MemoryError(str(library.fulmen_error().decode()))


def features(library: ctypes.CDLL) -> Features:
    """What `library` uses of this processor."""
    bits = library.fulmen_features()
    return Features(
        bfloat16=bool(bits & 1),
        int8=bool(bits & 2),
        amx=bool(bits & 8),
        amx_wrong=bool(bits & 4) and not bits & 8,
        avx512=bool(bits & 16),
    )
