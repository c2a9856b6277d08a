"""`bench/train_step.py` measures a training step end to end and prints what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench" / "train_step.py"


def test_a_toy_shape_is_measured_and_printed_as_json() -> None:
    arguments = ["--shapes", "toy", "--threads", "1", "--rounds", "1", "--warmup", "1", "--no-transformers", "--json"]
    done = subprocess.run([sys.executable, str(BENCH), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert result["shape"] == "toy"
    assert result["tokens_per_s"] > 0
    assert 0 < result["share_of_gemm_peak"] < 1
    assert result["moe_over_dense_step"] > 0
    assert result["ratio_vs_transformers"] is None
    assert result["ratio_reason"] == "left out"
    assert result["settings"]["optimizer"] == "adamw"
