"""Run in a process of its own with TRITON_INTERPRET=1: the decode kernel against PyTorch's form of it, on the CPU."""

from __future__ import annotations

import sys

import torch

from fulmen_backend_cuda.decode_kernel import decode_by_kernel
from fulmen_backend_cuda.paged_attention import decode_by_torch


def compare(seed: int) -> float:
    """The largest difference over one random step."""
    random = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=random))

    batch, kv_heads, group, places = draw(1, 3), draw(1, 2), draw(1, 5), 16
    width = (8, 16, 24, 32)[draw(0, 3)]
    blocks, units, processors = draw(1, 5), 12, draw(0, 12)
    shape = (units * places, kv_heads, width)
    k, v = (torch.randn(shape, generator=random) for _ in range(2))
    q = torch.randn(batch, kv_heads * group, width, generator=random)
    table = torch.stack([torch.randperm(units, generator=random)[:blocks] for _ in range(batch)]).to(torch.int32)
    end = torch.tensor([draw(1, blocks * places) for _ in range(batch)], dtype=torch.int32)
    start = torch.tensor([draw(0, int(last) - 1) for last in end], dtype=torch.int32)
    # what nobody sees is rubbish
    unseen = torch.ones(shape[0], dtype=torch.bool)
    for row, first, last in zip(table, start, end, strict=True):
        seen = torch.arange(int(first), int(last))
        unseen[row.long()[seen // places] * places + seen % places] = False
    k[unseen], v[unseen] = torch.nan, torch.nan
    expected = decode_by_torch(q, k, v, table, start, end, places=places)
    got = decode_by_kernel(q, k, v, table, start, end, places=places, multiprocessors=processors)
    assert got.shape == expected.shape
    return float((got - expected).abs().max())


if __name__ == "__main__":
    first, count = map(int, sys.argv[1:])
    sys.stdout.write(str(max(compare(seed) for seed in range(first, first + count))))
