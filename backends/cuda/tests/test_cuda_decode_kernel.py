"""The decode kernel, without a GPU: Triton's interpreter runs it, and Triton's compiler makes machine code of it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fulmen_backend_cuda.paged_attention import (
    Chunks,
    choose_attention,
    chunks_by_flash,
    chunks_by_torch,
    decode_by_torch,
)
from fulmen_backend_cuda.support import EMULATED, support_of
from fulmen_core.model.attention import attend

HERE = Path(__file__).parent


def run(script: str, *arguments: str, **environment: str) -> str:
    order = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(order, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_interpreted_kernel_equals_pytorchs_form(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
    seed = str(secrets.randbelow(2**31))
    assert float(run("interpreted_decode.py", seed, "8", TRITON_INTERPRET="1")) < 1e-5, seed


@pytest.mark.slow
def test_the_kernel_compiles_for_every_generation_of_gpus(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
    capabilities = ("80", "89", "90", "100", "120")
    sizes = json.loads(run("compiled_decode.py", *capabilities, TRITON_CACHE_DIR=str(tmp_path)))
    assert {name.split()[0] for name in sizes} == set(capabilities)
    assert {name: size for name, size in sizes.items() if size <= 1000} == {}


def test_decoding_sees_its_span_of_its_blocks_and_nothing_else() -> None:
    torch.manual_seed(0)
    places, units, kv_heads, width = 4, 7, 2, 8
    k, v = (torch.randn(units * places, kv_heads, width) for _ in range(2))
    q = torch.randn(2, 6, width)
    table = torch.tensor([[5, 0, 3], [2, 2, 6]], dtype=torch.int32)
    start, end = torch.tensor([3, 0], dtype=torch.int32), torch.tensor([11, 2], dtype=torch.int32)
    got = decode_by_torch(q, k, v, table, start, end, places=places)
    for row, seen in enumerate(([23, 0, 1, 2, 3, 12, 13, 14], [8, 9])):
        expected = attend(
            q[None, row : row + 1], k[None, seen], v[None, seen], torch.ones(1, len(seen), dtype=torch.bool)
        )
        torch.testing.assert_close(got[row], expected[0, 0])


def test_forms_are_chosen_by_what_the_device_and_the_heads_allow() -> None:
    assert choose_attention(torch.bfloat16, 64, 64, EMULATED).chunks is chunks_by_torch
    assert choose_attention(torch.bfloat16, 64, 64, support_of((9, 0))).chunks is chunks_by_flash
    assert choose_attention(torch.float32, 64, 64, support_of((9, 0))).chunks is chunks_by_torch
    assert choose_attention(torch.float16, 260, 64, support_of((8, 0))).chunks is chunks_by_torch
    assert choose_attention(torch.float32, 192, 64, support_of((8, 0))).description.startswith(
        "torch; torch for chunks"
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_the_kernel_on_the_gpu_equals_pytorchs_form(
    gpu: torch.device, dtype: torch.dtype, multiprocessors: int
) -> None:
    from fulmen_backend_cuda.decode_kernel import decode_by_kernel

    torch.manual_seed(1)
    places, units, batch = 64, 40, 5
    k, v = (torch.randn(units * places, 2, 128, device=gpu, dtype=dtype) for _ in range(2))
    q = torch.randn(batch, 10, 128, device=gpu, dtype=dtype)
    table = torch.stack([torch.randperm(units, device=gpu)[:17] for _ in range(batch)]).to(torch.int32)
    end = torch.tensor([1, 64, 65, 700, 17 * 64], dtype=torch.int32, device=gpu)
    start = torch.tensor([0, 63, 1, 500, 0], dtype=torch.int32, device=gpu)
    expected = decode_by_torch(q.float(), k.float(), v.float(), table, start, end, places=places)
    got = decode_by_kernel(q, k, v, table, start, end, places=places, multiprocessors=multiprocessors)
    torch.testing.assert_close(got.float(), expected, atol=2e-2 if dtype is not torch.float32 else 1e-4, rtol=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 1, 100])
def test_flash_attention_over_chunks_equals_pytorchs_form(gpu: torch.device, window: int | None) -> None:
    torch.manual_seed(2)
    queries, keys = [0, 7, 207, 500], [0, 7, 307, 800]
    if window is not None:
        keys = [0, 7, 207 + min(100, window - 1), 500 + 2 * min(100, window - 1)]
    q = torch.randn(queries[-1], 8, 64, device=gpu, dtype=torch.bfloat16)
    k, v = (torch.randn(keys[-1], 2, 64, device=gpu, dtype=torch.bfloat16) for _ in range(2))
    chunks = Chunks(
        torch.tensor(queries, dtype=torch.int32, device=gpu),
        torch.tensor(keys, dtype=torch.int32, device=gpu),
        queries,
        keys,
    )
    expected = chunks_by_torch(q.float(), k.float(), v.float(), chunks, window)
    torch.testing.assert_close(chunks_by_flash(q, k, v, chunks, window).float(), expected, atol=2e-2, rtol=1e-2)
