"""The compiled kernels of a training step as Python sees them: C functions of ``native_training/`` over ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fulmen_backend_cpu.native_sources import TRAINING
from fulmen_core.native_build import NativeUnavailable, build_library

#: Elements of a vector in the kernels: rows they work on are multiples of it.
LANES = 16

# p: pointer or None, l: int64, i: int, f: float. The number of threads, an int, comes last in all but `sort_pairs`.
_SIGNATURES = {
    "norm_forward": "ippppllf",
    "norm_backward": "ippppppll",
    "heads_forward": "iplppplpplllf",
    "heads_backward": "ipplppplpplplll",
    "softmax_forward": "ippllllllllllf",
    "softmax_backward": "ippllf",
    "pack_heads": "iplllllllp",
    "unpack_heads": "ipllllllp",
    "cut_windows": "ipllllllllp",
    "fold_windows": "iplllllllp",
    "cross_entropy": "ippppll",
    "gather": "iipplpll",
    "combine": "iipplpll",
    "swiglu_forward": "ippppll",
    "swiglu_backward": "ipppppppll",
    "experts_forward": "ippppppllllppp",
    "experts_backward": "ippppppppllllppppp",
    "attention_forward": "plplplpllllllppp",
    "attention_backward": "plplplplpllllllppppp",
}
_PART = ctypes.CFUNCTYPE(None)
_TYPES = {"p": c_void_p, "l": c_int64, "i": c_int, "f": c_float}


def choose_panels(capabilities: Mapping[str, Any]) -> bool:
    """Whether a processor with these `torch.cpu.get_capabilities()` is fastest in bfloat16 with products by panels.

    They multiply with vectors; on a processor that has matrix units (AMX) a step takes a third less time in oneDNN's,
    which use them.
    """
    return bool(capabilities.get("avx512_bf16")) and not capabilities.get("amx_bf16")


@cache
def panels_are_faster() -> bool:
    """`choose_panels` of this processor."""
    return choose_panels(torch.cpu.get_capabilities())


@cache
def load_kernels() -> TrainingKernels:
    """Compile them if this machine has not yet (a few seconds), and load them.

    Raises:
        NativeUnavailable: they cannot be compiled or loaded; the message says why.
    """
    path = build_library(TRAINING)
    try:
        return TrainingKernels(ctypes.CDLL(str(path)))
    except OSError as error:
        raise NativeUnavailable(f"the compiled kernels cannot be loaded: {error}") from error


class TrainingKernels:
    """Calls by name: ``kernels.call("gather", ...)`` with tensors for pointers, on torch's number of threads."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions: dict[str, Any] = {}
        for name, letters in _SIGNATURES.items():
            function = getattr(library, f"fulmen_{name}")
            function.restype = None
            function.argtypes = [*(_TYPES[letter] for letter in letters), c_int]
            self._functions[name] = function
        self._on_each_thread = library.fulmen_on_each_thread
        self._on_each_thread.restype = None
        self._on_each_thread.argtypes = [_PART, c_int]
        self._sort_pairs = library.fulmen_sort_pairs
        self._sort_pairs.restype = c_int64
        self._sort_pairs.argtypes = [c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_void_p]

    def call(self, name: str, *arguments: Tensor | float | None) -> None:
        """Run one kernel. Tensors must be laid out as it expects: nothing is checked here."""
        raw = [argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments]
        self._functions[name](*raw, torch.get_num_threads())

    def on_each_thread(self, part: Callable[[], None]) -> None:
        """Run `part` once on each of torch's threads at once; torch's operations inside it use that thread alone.

        Raises:
            Exception: the first that a part raised.
        """
        faults: list[Exception] = []

        def guarded() -> None:
            try:
                part()
            except Exception as error:  # ctypes would print and forget it
                faults.append(error)

        self._on_each_thread(_PART(guarded), torch.get_num_threads())
        if faults:
            raise faults[0]

    def sort_pairs(self, selected_NK: Tensor, experts: int, unit: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows for (token, selection) pairs, sorted by expert, each expert's rounded up to a multiple of `unit`.

        Above 16 units the unit doubles with the number of rows, so that few different numbers occur.

        Returns int32 ``ends_E`` (of each expert's rows), ``row_M`` (of each pair), ``pair_R`` (of a row; -1: filler).
        """
        selected_NK = selected_NK.contiguous()
        pairs = selected_NK.numel()
        ends_E, row_M = torch.empty(experts, dtype=torch.int32), torch.empty(pairs, dtype=torch.int32)
        pair_R = torch.empty(pairs + pairs // 8 + experts * unit, dtype=torch.int32)
        rows = self._sort_pairs(
            selected_NK.data_ptr(), pairs, experts, unit, ends_E.data_ptr(), row_M.data_ptr(), pair_R.data_ptr()
        )
        return ends_E, row_M, pair_R[:rows]

    def gather(self, x_ND: Tensor, pair_R: Tensor, top_k: int, dtype: torch.dtype) -> Tensor:
        """Each row its token's vector, [R, D]; filler is zero."""
        rows, width = len(pair_R), x_ND.shape[1]
        x_RD = x_ND.new_empty(rows, width, dtype=dtype)
        low = int(x_ND.dtype is torch.bfloat16), int(dtype is torch.bfloat16)
        self.call("gather", *low, x_ND, pair_R, top_k, x_RD, rows, width)
        return x_RD

    def combine(self, y_RD: Tensor, row_M: Tensor, top_k: int, dtype: torch.dtype) -> Tensor:
        """Each token the sum of its rows, [N, D]."""
        tokens, width = len(row_M) // top_k, y_RD.shape[1]
        y_ND = y_RD.new_empty(tokens, width, dtype=dtype)
        low = int(y_RD.dtype is torch.bfloat16), int(dtype is torch.bfloat16)
        self.call("combine", *low, y_RD, row_M, top_k, y_ND, tokens, width)
        return y_ND
