"""A run that is killed without warning and started again ends in the same bytes as one that was not."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fulmen_core.registry import Registry
from fulmen_core.tokenizer import Tokenizer
from fulmen_trainer.data.shards import ShardSet
from fulmen_trainer.display import LineDisplay
from fulmen_trainer.loop import checkpoints
from fulmen_trainer.pretrain import PretrainConfig, pretrain

CHILD = """
import json, sys
from pathlib import Path
import torch
from fulmen_core.registry import Registry
from fulmen_core.tokenizer import load_tokenizer
from fulmen_trainer.data.shards import open_shards
from fulmen_trainer.pretrain import PretrainConfig, pretrain
torch.set_num_threads(1)
job = json.loads(sys.argv[1])
tokenizer = load_tokenizer(Path(job["tokenizer"]))
pretrain(
    PretrainConfig.model_validate(job["config"]),
    shards={name: open_shards(Path(path), tokenizer=tokenizer) for name, path in job["shards"].items()},
    tokenizer=tokenizer, heldout=["value index token"], work=Path(job["work"]), registry=Registry.discover(),
)
"""


def start(job: dict[str, Any], work: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps({**job, "work": str(work)})], stderr=subprocess.DEVNULL
    )


def kill_after(process: subprocess.Popen[bytes], work: Path, step: int) -> None:
    """SIGKILL as soon as the run has recorded `step`."""
    deadline = time.monotonic() + 120
    metrics = work / "metrics.jsonl"
    while not metrics.exists() or f'{{"step": {step},' not in metrics.read_text():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(
    pretrain_settings: Callable[..., dict[str, Any]],
    shard_sets: dict[str, ShardSet],
    training_tokenizer: Tokenizer,
    registry: Registry,
    tmp_path: Path,
) -> None:
    training_tokenizer.save(tmp_path / "tokenizer")
    config = pretrain_settings(
        steps=48, batch_size=2, checkpoint_every=7, log_every=2, optimizer={"name": "muon"}, dtype="auto"
    )
    job = {
        "tokenizer": str(tmp_path / "tokenizer"),
        "shards": {name: str(shards.directory) for name, shards in shard_sets.items()},
        "config": config,
    }
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for step in (10, 30):  # in the first and in the second stage, between two checkpoints
        kill_after(start(job, broken), broken, step)
        assert 0 < int(checkpoints(broken)[-1].name.removeprefix("step-")) < 48
    assert start(job, broken).wait() == 0
    pretrain(
        PretrainConfig.model_validate(config),
        shards=shard_sets,
        tokenizer=training_tokenizer,
        heldout=["value index token"],
        work=whole,
        registry=registry,
        display=LineDisplay(io.StringIO()),
    )

    for name in ("model.safetensors", "fork/model.safetensors", "fork/optimizer.safetensors"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name

    def losses(work: Path) -> list[tuple[int, float]]:
        lines = (work / "metrics.jsonl").read_text().splitlines()
        return [(record["step"], record["loss"]) for record in map(json.loads, lines)]

    assert losses(broken) == losses(whole)
