"""The inference benchmark measures Fulmen's runner on a toy, prints the promised keys, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.transformer import Transformer

BENCH = Path(__file__).parent.parent / "bench"
sys.path.insert(0, str(BENCH))

from inference import report  # noqa: E402 - the benchmark is a folder of scripts, not a distribution
from inference.bandwidth import read_bandwidth  # noqa: E402
from inference.engines import ENGINES, Contender  # noqa: E402
from inference.measurement import Cell, Effort, Measured, measure  # noqa: E402
from inference.shapes import Shape  # noqa: E402
from inference.worker_process import Worker, WorkerError  # noqa: E402

TOY = Shape("toy", "", 512, 64, 4, 2, 1, 32, 8, 2, 32, 0, 64, 32, False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Fulmen alone, in bfloat16, one cell; on weights of its own, as transformers takes half a minute to import."""
    work = tmp_path_factory.mktemp("bench")
    imported = work / "fulmen"  # where the worker looks before it imports the folder `model`
    imported.mkdir()
    config = ModelConfig(
        vocab_size=TOY.vocab_size,
        hidden_size=TOY.hidden_size,
        num_hidden_layers=TOY.layers,
        num_attention_heads=TOY.heads,
        num_key_value_heads=TOY.kv_heads,
        head_dim=TOY.head_dim,
        max_position_embeddings=256,
        sliding_window=TOY.window,
        kv_share=1,
        intermediate_size=TOY.dense_width,
        num_experts=TOY.experts,
        num_experts_per_tok=TOY.experts_per_token,
        moe_intermediate_size=TOY.expert_width,
    )
    save_model(Transformer(config), imported)
    contenders = [Contender(ENGINES["fulmen"], "bf16", Path(sys.executable))]
    core = min(os.sched_getaffinity(0))
    said: list[str] = []
    result = measure(
        TOY, work / "model", contenders, [Cell(2, 40)], [core], Effort(rounds=2, new_tokens=6), said.append
    )
    assert not result.failures, said
    return result


def test_cells_have_the_promised_keys(measured: Measured) -> None:
    rows = report.cells(measured, None)
    assert [row["phase"] for row in rows] == ["prefill", "decode"]
    for row in rows:
        assert (row["batch"], row["prompt"], row["shape"]) == (2, 40, "toy")
        assert row["tokens_per_s"] > 0
        assert row["share_of_bandwidth"] > 0
        assert row["ttft_ms"] > 0
        assert row["kv_bytes"] > 0
        assert (row["best_peer"], row["ratio_vs_best_peer"]) == (None, None)  # nobody else was there
        json.dumps(row)


def test_ratios_are_medians_of_rounds_and_the_best_peer_is_the_fastest() -> None:
    cell = Cell(1, 10)
    told = {"tokens": [[1, 2, 3]], "peak_memory_bytes": 5, "prefill_s": 1.0, "decode_tokens": 8}
    seconds = {"fulmen-bf16": [1.0, 2.0, 4.0], "llama-q8_0": [2.0, 2.0, 12.0], "vllm-bf16": [4.0, 8.0, 16.0]}
    figures = {(cell, label): [told | {"decode_s": s} for s in rounds] for label, rounds in seconds.items()}
    details: dict[str, dict[str, Any]] = {label: {} for label in seconds}
    measured = Measured(TOY, figures, details, {}, [1e9])
    row = report.cells(measured, None)[1]
    assert (row["best_peer"], row["ratio_vs_best_peer"], row["tokens_per_s"]) == ("llama-q8_0", 2.0, 4.0)
    assert row["like_for_like"] == {"precision": "bf16", "best_peer": "vllm-bf16", "ratio_vs_best_peer": 4.0}
    assert report.cells(measured, "bf16")[1]["best_peer"] == "vllm-bf16"


def test_a_decode_step_reads_what_its_tokens_choose() -> None:
    assert TOY.read_parameters(1) == pytest.approx(TOY.active_parameters)
    assert TOY.read_parameters(10_000) == pytest.approx(
        TOY.resident_parameters + TOY.moe_layers * TOY.experts * TOY.expert_parameters
    )
    assert TOY.read_kv(3, 100) == 2 * 3 * (1 * 100 + 3 * 32) * 32


def test_bandwidth_is_that_of_a_memory() -> None:
    assert 1e8 < read_bandwidth([min(os.sched_getaffinity(0))], repeats=1, size=1 << 22) < 1e13


def test_a_worker_that_fails_says_so_and_leaves_no_process(tmp_path: Path) -> None:
    worker = Worker("fulmen", Path(sys.executable), os.sched_getaffinity(0), tmp_path / "log")
    pid = worker._process.pid
    question = {"do": "prepare", "model": "/nowhere", "work": str(tmp_path), "precision": "bf16"}
    with worker, pytest.raises(WorkerError, match="nowhere"):
        worker.ask(question, 60)
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_a_driver_that_is_killed_takes_its_workers_along(tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(BENCH)!r})
from pathlib import Path
from inference.worker_process import Worker
worker = Worker("fulmen", Path(sys.executable), {{{min(os.sched_getaffinity(0))}}}, Path({str(tmp_path / "log")!r}))
print(worker._process.pid, flush=True)
time.sleep(60)
"""
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or _state(pid) == "Z"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
