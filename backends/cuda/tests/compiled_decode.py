"""Run in a process of its own: compile the decode kernel for GPUs that are not there, into machine code."""

from __future__ import annotations

import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fulmen_backend_cuda.decode_kernel import _attend_span, kernel_sizes

ARGUMENTS = ("q_BHh", "k_PKh", "v_PKh", "table_Bn", "start_B", "end_B", "o_BKSGh", "most_BKSG", "total_BKSG", "scale")


def compile_for(capability: int, dtype: str) -> int:
    """Bytes of machine code for heads of 128, 4 of them a kv head, over 64 blocks."""
    pointers = [f"*{dtype}"] * 3 + ["*i32"] * 3 + ["*fp32"] * 3
    sizes = kernel_sizes(width=128, kv_heads=8, group=4, blocks=64, places=64, splits=8)
    signature = dict(zip(ARGUMENTS, [*pointers, "fp32"], strict=True)) | dict.fromkeys(sizes, "constexpr")
    source = ASTSource(fn=_attend_span, signature=signature, constexprs=sizes)
    return len(triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"])


if __name__ == "__main__":
    dtypes = ("bf16", "fp16", "fp32")
    sizes = {f"{number} {dtype}": compile_for(int(number), dtype) for number in sys.argv[1:] for dtype in dtypes}
    json.dump(sizes, sys.stdout)
