"""Run in a process of its own: compile the decode kernels for GPUs that are not there, into machine code."""

from __future__ import annotations

import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fulmen_backend_cuda.decode_kernel import JOINED_SIZES, _attend_span, _join_spans, kernel_sizes

ATTENDED = ("q_BHh", "k_PKh", "v_PKh", "table_Bn", "start_B", "end_B", "o_BKSGh", "most_BKSG", "total_BKSG", "scale")
JOINED = ("o_BKSGh", "most_BKSG", "total_BKSG", "out_BHh")


def compile_for(capability: int, dtype: str) -> int:
    """Bytes of the smaller machine code for heads of 128, 4 of them a kv head, over 64 blocks."""
    sizes = kernel_sizes(width=128, kv_heads=8, group=4, blocks=64, places=64, splits=8)
    pointers = [f"*{dtype}"] * 3 + ["*i32"] * 3 + ["*fp32"] * 3
    attended = dict(zip(ATTENDED, [*pointers, "fp32"], strict=True))
    joined = dict(zip(JOINED, ["*fp32"] * 3 + [f"*{dtype}"], strict=True))
    joined_sizes = {name: sizes[name] for name in JOINED_SIZES}
    target = GPUTarget("cuda", capability, 32)
    return min(
        len(
            triton.compile(
                ASTSource(fn=kernel, signature=types | dict.fromkeys(own, "constexpr"), constexprs=own), target=target
            ).asm["cubin"]
        )
        for kernel, types, own in ((_attend_span, attended, sizes), (_join_spans, joined, joined_sizes))
    )


if __name__ == "__main__":
    dtypes = ("bf16", "fp16", "fp32")
    sizes = {f"{number} {dtype}": compile_for(int(number), dtype) for number in sys.argv[1:] for dtype in dtypes}
    json.dump(sizes, sys.stdout)
