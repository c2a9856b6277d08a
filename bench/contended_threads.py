"""What a busy neighbour costs: a training step and a decode step, alone and beside a process that keeps one core busy.

    python bench/contended_threads.py --json

For each number of threads and each way of OpenMP's waiting, tokens a second alone and beside the neighbour. `chosen` is
what `fulmen` takes by itself (spin 1000; with the neighbour there, when it looks); `kept` is its rate beside the
neighbour as a share of one thread alone. The goal is one half or more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inference.watchdog import Watchdog

#: Environments to compare: GNU OpenMP spins ~300,000 rounds by default before a waiting thread sleeps.
WAITING = {
    "default": {},
    "spin 20000": {"GOMP_SPINCOUNT": "20000"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
_SECONDS = 3.0


def train(threads: int, seconds: float) -> dict[str, Any]:
    """Tokens a second of optimizer steps of a small mixture; 0 threads: as `fulmen pretrain` chooses."""
    import torch

    from fulmen_backend_cpu.backend import CpuBackend
    from fulmen_backend_cpu.threads import run_on
    from fulmen_core.backend import TrainPlan
    from fulmen_core.model.config import ModelConfig
    from fulmen_core.model.transformer import Transformer

    chosen = run_on(threads or None)
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=2048,
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=512,
        sliding_window=128,
        intermediate_size=512,
        num_experts=16,
        num_experts_per_tok=4,
        moe_intermediate_size=64,
    )
    model = Transformer(config)
    program = CpuBackend().prepare_training(model, TrainPlan())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens_BT = torch.randint(0, 2048, (8, 128))

    def step() -> None:
        with program.autocast():
            logits_BTV = model.logits(program.model(tokens_BT).hidden_BTD)
            logits_NV, targets_N = logits_BTV[:, :-1].flatten(0, 1).float(), tokens_BT[:, 1:].flatten()
            loss = torch.nn.functional.cross_entropy(logits_NV, targets_N)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"rate": _rate(step, tokens_BT.numel(), seconds), **chosen}


def decode(threads: int, seconds: float, model: Path) -> dict[str, Any]:
    """Tokens a second of decode steps over four sequences; 0 threads: as the runner chooses."""
    from fulmen_backend_cpu.backend import CpuBackend
    from fulmen_core.runner import EngineLimits, SequenceStep

    runner = CpuBackend().load_runner(model, EngineLimits(4, 4096, 64, threads), "bfloat16")
    position = 0

    def step() -> None:
        nonlocal position
        runner.step([SequenceStep(slot, position, [7]) for slot in range(4)])
        position = (position + 1) % 512

    return {"rate": _rate(step, 4, seconds), "threads": int(runner.choices.get("threads", 0))}


def _rate(step: Any, tokens: int, seconds: float) -> float:
    for _ in range(3):
        step()
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        step()
        done += tokens
    return done / (time.perf_counter() - begin)


@contextlib.contextmanager
def neighbour(present: bool) -> Iterator[None]:
    """A process that never rests, on the first core that this one may use."""
    if not present:
        yield
        return
    core = min(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    watchdog = Watchdog()
    busy = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    watchdog.guard(busy.pid)
    try:
        time.sleep(0.3)
        yield
    finally:
        busy.kill()
        busy.wait()
        watchdog.dismiss()


def measure(kind: str, threads: int, waiting: str, beside: bool, args: argparse.Namespace) -> dict[str, Any]:
    """One setting, in a process of its own: OpenMP reads its environment when it is loaded."""
    order = [sys.executable, __file__, "--inside", kind, "--threads", str(threads), "--seconds", str(args.seconds)]
    if args.model:
        order += ["--model", str(args.model)]
    with neighbour(beside):
        done = subprocess.run(order, env=os.environ | WAITING[waiting], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    """Measure every setting; print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="for each setting (%(default)s)")
    parser.add_argument("--model", type=Path, help="a model directory: measure its decode step too")
    parser.add_argument("--inside", choices=("train", "decode"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        train_it = args.inside == "train"
        print(
            json.dumps(
                train(args.threads, args.seconds) if train_it else decode(args.threads, args.seconds, args.model)
            )
        )
        return 0
    most = len(os.sched_getaffinity(0))
    rows = []
    for kind in ("train", "decode") if args.model else ("train",):
        settings = [(1, "default"), *((most, waiting) for waiting in (WAITING if kind == "train" else ["default"]))]
        for threads, waiting in [*settings, (0, "spin 1000")]:
            alone, beside = (measure(kind, threads, waiting, present, args) for present in (False, True))
            row = {"step": kind, "threads": threads or "chosen", "waiting": waiting}
            row |= {"alone": alone["rate"], "beside": beside["rate"], "took": [alone["threads"], beside["threads"]]}
            rows.append(row)
            rates = f"alone {row['alone']:>8.0f}  beside {row['beside']:>8.0f} tok/s  threads {row['took']}"
            print(f"{kind:<7} {row['threads']!s:<7} {waiting:<11} {rates}", file=sys.stderr, flush=True)
    kept = {
        kind: next(row["beside"] for row in rows if row["step"] == kind and row["threads"] == "chosen")
        / next(row["alone"] for row in rows if row["step"] == kind and row["threads"] == 1)
        for kind in {row["step"] for row in rows}
    }
    print(json.dumps({"rows": rows, "kept": kept}) if args.json else f"kept beside the neighbour: {kept}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
