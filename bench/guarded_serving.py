"""What RAISE takes from a server's throughput: the same model served without a guard, with it, with its process, and
with a guard that reads every token by itself.

    python bench/guarded_serving.py --json > cells.json              # the small shape at 1, 8 and 32 streams
    python bench/guarded_serving.py --shape A --streams 1,8

All servers run at once, on the cores that this is pinned to, and are asked in turns, round after round, so that
whatever else the machine does is the same for all; only one has work at a time. `kept` is a server's tokens a second
over the unguarded one's of the same round, the median of the rounds, and `loss` what is missing to 1. The client shares
the cores. The weights are random, but the vocabulary is of words, so that the guard reads text like English and not
names of tokens; the policy is the default one, except that no category ends an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.folders import add_folders
from inference.measurement import model_folder
from inference.shapes import SHAPES
from serving.served_folder import fulmen_folder, served_folder, worded_folder
from serving.server_kinds import Contender, Room, start_command
from serving.server_process import ServerProcess, free_port

from fulmen_safety.policy import load_policy
from fulmen_serving.load.generator import Load, run_load
from fulmen_serving.load.report import Slo
from fulmen_serving.load.target import Target
from fulmen_serving.load.traffic import Traffic

_PATIENCE = 600.0  # seconds: a first start compiles
_KINDS = {
    "unguarded": ["--no-guard"],
    "guarded": [],
    "guarded every step": ["--guard-wait-ms", "0"],
    "guard process": ["--guard-process"],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    args = _parse(argv)
    shape = SHAPES[args.shape]
    served = served_folder(model_folder(shape, args.work, Path(sys.executable)), args.work / shape.name / "served")
    model = fulmen_folder(worded_folder(served, served.with_name("worded")), served.with_name("worded-fulmen"))
    cells = _cells(args, model)
    print(json.dumps(cells, indent=2) if args.json else "\n".join(map(str, cells)))
    return 0


def _cells(args: argparse.Namespace, model: Path) -> list[dict[str, Any]]:
    policy = _policy(args.work / "guarded-serving.toml")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    room = Room(max(args.streams), args.prompt_tokens + args.output_tokens + 128, prefixes=False)
    with contextlib.ExitStack() as servers:
        urls = {}
        for kind, options in _KINDS.items():
            port, log = free_port(), args.work / args.shape / f"{kind.replace(' ', '-')}.log"
            extra = [*options, *([] if kind == "unguarded" else ["--policy", str(policy)])]
            fulmen = Contender("fulmen", args.weights)
            command, environment = start_command(fulmen, Path(sys.executable), model, port, room, cores, extra)
            server = servers.enter_context(ServerProcess(command, port, cores, log, environment))
            server.wait_ready(_PATIENCE)
            urls[kind] = server.url
        return [_cell(args, urls, streams, len(cores)) for streams in args.streams]


def _cell(args: argparse.Namespace, urls: dict[str, str], streams: int, cores: int) -> dict[str, Any]:
    speeds: dict[str, list[float]] = {kind: [] for kind in urls}
    first: dict[str, list[float]] = {kind: [] for kind in urls}
    for number in range(args.rounds + 1):
        kinds = list(urls) if number % 2 else list(reversed(urls))  # nobody always comes first
        for kind in kinds:
            result = _run(urls[kind], args, streams, number)
            if result["errors"] or result["output_tokens"] != result["completed"] * args.output_tokens:
                raise SystemExit(f"{kind}: errors {result['errors']}, {result['output_tokens']} tokens")
            if number:  # the first round is for caches to fill
                speeds[kind].append(result["tokens_per_s"])
                first[kind].append(result["ttft_ms"]["p50"])
        print(f"{streams} streams: {number} of {args.rounds}", file=sys.stderr, flush=True)
    cell: dict[str, Any] = {"shape": args.shape, "weights": args.weights, "streams": streams, "cores": cores}
    for kind in urls:
        name = kind.replace(" ", "_")
        kept = [guarded / bare for guarded, bare in zip(speeds[kind], speeds["unguarded"], strict=True)]
        cell[f"{name}_tokens_per_s"] = round(statistics.median(speeds[kind]), 1)
        cell[f"{name}_first_token_ms"] = round(statistics.median(first[kind]), 2)
        if kind != "unguarded":
            cell[f"{name}_kept"] = round(statistics.median(kept), 4)
            cell[f"{name}_kept_of_rounds"] = [round(min(kept), 4), round(max(kept), 4)]
            cell[f"{name}_loss"] = round(1 - statistics.median(kept), 4)
    return cell


def _run(url: str, args: argparse.Namespace, streams: int, seed: int) -> dict[str, Any]:
    traffic = Traffic("random", args.prompt_tokens, args.output_tokens, seed=seed)

    async def measure() -> dict[str, Any]:
        async with Target(url, extra={"ignore_eos": True, "temperature": 1.0, "seed": seed}) as target:
            return await run_load(target, traffic, Load(streams, None, args.answers * streams, warmup=streams), Slo())

    return asyncio.run(measure())


def _policy(path: Path) -> Path:
    """The default policy, in which every detector of answers judges and no category ends one."""
    allowed = "".join(f'[categories.{name}]\noutput = "allow"\n' for name in load_policy().file.categories)
    path.write_text(f'extends = "default"\n{allowed}')
    return path


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    add_folders(parser)
    parser.add_argument("--shape", choices=list(SHAPES), default="S")
    parser.add_argument("--weights", choices=("bf16", "int8"), default="bf16")
    parser.add_argument("--streams", type=lambda text: [int(one) for one in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5, help="after one that does not count (%(default)s)")
    parser.add_argument("--answers", type=int, default=2, help="of a stream in a round (%(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=128)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
