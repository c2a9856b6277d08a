"""`bench/cuda.py` says in one sentence that there is no GPU, and what of it needs none runs to the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fulmen_backend_cuda.plugin import probe

BENCH = Path(__file__).parents[1] / "bench" / "cuda.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCH), *arguments], capture_output=True, text=True, check=False)


def test_without_a_gpu_it_exits_with_2_and_one_sentence() -> None:
    found = probe()
    if found.ok:
        pytest.skip("there is a GPU")
    done = run()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"bench/cuda.py measures a GPU, and {found.reason}\n"


def test_a_toy_shape_is_measured_without_a_gpu_and_says_that_its_figures_say_nothing() -> None:
    options = ["--device", "cpu", "--shapes", "toy", "--rounds", "1", "--warmup", "1", "--context", "30"]
    done = run(*options, "--batches", "1", "3", "--ways", "auto", "fp8", "--no-transformers", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["device"] == "cpu: figures say nothing"
    assert [cell["way"] for cell in results["training"]] == ["auto", "fp8"]
    assert [cell["sequences"] for cell in results["decoding"]] == [1, 3]
    for cell in (*results["training"], *results["decoding"]):
        assert cell["tokens_per_s"] > 0
        assert cell["ratio_vs_transformers"] is None
        assert cell["ratio_reason"] == "left out"
    assert all(0 < cell["mfu"] < 1 for cell in results["training"])
    assert all(cell["bandwidth_share"] > 0 for cell in results["decoding"])
