"""Fulmen's server beside the installed peers' on the same random AFMoE weights: throughput and waits under load.

    python bench/serve.py --json > cells.json                            # shape A at 1, 8 and 32 clients
    python bench/serve.py --shape S --clients 1,8                        # the small shape: overhead decides
    python bench/serve.py --servers fulmen,llama-server:q8_0 --traffic multi-turn

Peers come from `python bench/peers/install.py vllm llama-server --into DIR` and are found by ``--peers DIR``. One that
cannot run is named, with the reason, and left out. Servers run one at a time on 127.0.0.1, pinned to two cores, which
the client shares: its part of a core stands in every cell. Nothing else should run.

Random traffic shares nothing, and no server keeps prefixes. Multi-turn traffic, one conversation at a time, measures
how soon a second turn is answered by servers that keep them: ``second_turn_ratio`` is its time to the first token over
that of the first turn, which is cold. Its answers are one word again and again, because the text of random tokens would
not encode to the same tokens in the next prompt, as a trained model's does. Every answer has as many tokens as it was
asked for: no server may end it. A ratio is over the peer with weights of as many bits, so int8 stands beside Q8_0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.folders import add_folders
from inference.measurement import model_folder
from inference.names import names_of
from inference.shapes import SHAPES
from serving.served_folder import fulmen_folder, repeatable_word, served_folder
from serving.served_gguf import served_gguf
from serving.server_kinds import BITS, READY, SERVERS, Contender, Room, find_servers, start_command
from serving.server_process import ServerError, ServerProcess, free_port

from fulmen_core.errors import UserError
from fulmen_serving.load.generator import Load, run_load
from fulmen_serving.load.report import Slo
from fulmen_serving.load.target import Target
from fulmen_serving.load.traffic import Traffic

_START_PATIENCE = 600.0  # seconds: a first start compiles
_TRAFFIC = ("random", "multi-turn")
_TURNS = 2
_TURN_TOKENS = 32  # of a second turn's user message
_TURN_OUTPUT_TOKENS = 16


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 2 if what was asked for cannot be, 130 after Ctrl-C."""
    args = _parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: servers end with the driver
    found, missing = find_servers(args.peers)
    for name in dict.fromkeys(one.server for one in args.servers):
        if name in missing:
            say(f"left out: {name}: {missing[name]}")
    wanted = [one for one in args.servers if one.server in found]
    if not wanted:
        say("nothing to measure: no server is installed")
        return 2
    shape = SHAPES[args.shape]
    if not (args.work / shape.name / "model").exists() and "transformers" not in found:
        say("transformers writes the weights that all servers read: `pip install transformers`")
        return 2
    model = model_folder(shape, args.work, found.get("transformers", Path(sys.executable)))
    served = served_folder(model, model.parent / "served")
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else [0, 1]
    cells: list[dict[str, Any]] = []
    for kind in args.traffic:
        for one in wanted:
            try:
                folder = _served_as(one, served, found[one.server])
                cells += _measure(one, found[one.server], folder, kind, cores, args)
            except (ServerError, UserError, OSError, subprocess.CalledProcessError) as error:
                say(f"{shape.name} {kind}: {one.label} left out: {error}")
    _add_ratios(cells)
    for cell in cells:
        say(
            "  ".join(
                f"{key}={value:.2f}" if isinstance(value, float) else f"{key}={value}" for key, value in cell.items()
            )
        )
    if args.json:
        print(json.dumps(cells))
    return 0 if cells else 2


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def _served_as(one: Contender, served: Path, program: Path) -> Path:
    """The folder or file that a server reads, made of `served` where it has a form of its own."""
    if one.server == "fulmen":
        return fulmen_folder(served, served.parent / "served-fulmen")
    return served_gguf(served, one.weights, program) if one.server == "llama-server" else served


def _measure(
    one: Contender, program: Path, model: Path, kind: str, cores: Sequence[int], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Start a server and measure its cells of one kind of traffic."""
    several = kind == "random"
    clients = args.clients if several else [1]
    context = args.prompt_tokens + args.output_tokens + 128
    if not several:
        context = args.first_turn_tokens + _TURN_TOKENS + 2 * _TURN_OUTPUT_TOKENS + 256
    room = Room(max(clients), context, prefixes=not several)
    fulmen_options = [*args.fulmen_options, *([] if args.guard else ["--no-guard"])]
    port = free_port()
    command, environment = start_command(one, program, model, port, room, cores, fulmen_options)
    log = args.work / args.shape / f"serve-{one.label}.log"
    with ServerProcess(command, port, cores, log, environment) as server:
        ready = server.wait_ready(_START_PATIENCE, READY.get(one.server, "/v1/models"))
        say(f"{args.shape} {kind}: {one.label} ready after {ready:.1f} s")
        measure = _cell if several else _second_turn
        return [measure(one, server.url, number, args) | {"ready_s": ready} for number in clients]


def _run(url: str, traffic: Traffic, load: Load, **extra: object) -> dict[str, Any]:
    async def measure() -> dict[str, Any]:
        async with Target(url, extra={"ignore_eos": True, **extra}) as target:
            # llama.cpp's server closes connections that it has promised to keep; so nobody's are kept
            target.client.headers["connection"] = "close"
            return await run_load(target, traffic, load, Slo())

    return asyncio.run(measure())


def _cell(one: Contender, url: str, clients: int, args: argparse.Namespace) -> dict[str, Any]:
    """Prompts that share nothing, from so many clients."""
    traffic = Traffic("random", args.prompt_tokens, args.output_tokens)
    load = Load(clients, None, max(args.requests, 2 * clients), warmup=clients)
    return _figures(one, traffic, clients, _run(url, traffic, load))


def _second_turn(one: Contender, url: str, clients: int, args: argparse.Namespace) -> dict[str, Any]:
    """Conversations of two turns: the first prompt is long and cold, the second adds little to it."""
    traffic = Traffic("multi-turn", args.first_turn_tokens, _TURN_OUTPUT_TOKENS, turns=_TURNS, turn_tokens=_TURN_TOKENS)
    word = repeatable_word(args.work / args.shape / "served")
    load = Load(clients, None, args.conversations, warmup=1)
    result = _run(url, traffic, load, logit_bias={str(word): 100})
    cell = _figures(one, traffic, clients, result)
    cold, second = (turn["p50"] if turn else None for turn in result["ttft_by_turn_ms"])
    turns = {"cold_ttft_ms": cold, "second_turn_ttft_ms": second}
    return cell | turns | {"second_turn_ratio": second / cold if cold and second else None}


def _figures(one: Contender, traffic: Traffic, clients: int, result: dict[str, Any]) -> dict[str, Any]:
    engine = result["fulmen"]
    wanted = result["completed"] * traffic.output_tokens
    say(
        f"{one.label} at {clients} clients: {result['tokens_per_s']:.1f} tokens/s, errors {result['errors']}"
        + ("" if wanted == result["output_tokens"] else f", {result['output_tokens']} tokens instead of {wanted}")
    )
    return {
        "server": one.server,
        "weights": one.weights,
        "traffic": traffic.kind,
        "clients": clients,
        "tokens_per_s": result["tokens_per_s"],
        "ttft_p95_ms": result["ttft_ms"]["p95"],
        "itl_p50_ms": result["itl_ms"]["p50"] if result["itl_ms"] else None,
        "busy": engine["busy"] if engine else None,
        "batch": engine["batch"] if engine else None,
        "completed": result["completed"],
        "prompt_tokens_mean": result["prompt_tokens_mean"],
        "output_tokens": result["output_tokens"],
        "output_tokens_wanted": wanted,
        "tokens_counted_by": result["tokens_counted_by"],
        "errors": result["errors"],
        "client_cpu_share": result["client"]["cpu_share"],
        "client_bottleneck": result["client"]["bottleneck"],
    }


def _add_ratios(cells: list[dict[str, Any]]) -> None:
    """Throughput over that of each peer in the same traffic, with weights of as many bits; None without one.

    Peers' own cells have ratios too.
    """

    def place(server: str, cell: dict[str, Any]) -> tuple[str, int, str, int]:
        return server, BITS[cell["weights"]], cell["traffic"], cell["clients"]

    speed = {place(cell["server"], cell): cell["tokens_per_s"] for cell in cells}
    for cell in cells:
        for field, peer in (("ratio_vs_vllm_cpu", "vllm"), ("ratio_vs_llama_server", "llama-server")):
            base = speed.get(place(peer, cell))
            cell[field] = cell["tokens_per_s"] / base if base else None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the cells as JSON on stdout")
    add_folders(parser)
    parser.add_argument("--shape", choices=list(SHAPES), default="A")
    parser.add_argument("--clients", type=_numbers, default=[1, 8, 32], help="of random traffic, e.g. 1,8,32")
    parser.add_argument(
        "--servers",
        type=_contenders,
        default=_contenders(",".join(SERVERS)),
        help="e.g. fulmen:bf16,llama-server:q8_0; default: all, in all weights",
    )
    parser.add_argument(
        "--traffic", type=names_of("traffic", _TRAFFIC), default=list(_TRAFFIC), help="of " + ", ".join(_TRAFFIC)
    )
    parser.add_argument("--requests", type=int, default=32, help="of a cell, at least two a client (%(default)s)")
    parser.add_argument("--guard", action="store_true", help="Fulmen behind RAISE, which no peer has")
    parser.add_argument(
        "--fulmen-options",
        type=str.split,
        default=[],
        metavar="'...'",
        help="more for `fulmen serve`: --fulmen-options='--in-process'",
    )
    parser.add_argument("--prompt-tokens", type=int, default=128, help="of random traffic (%(default)s)")
    parser.add_argument("--output-tokens", type=int, default=64, help="of random traffic (%(default)s)")
    parser.add_argument("--first-turn-tokens", type=int, default=2048, help="of a cold first turn (%(default)s)")
    parser.add_argument("--conversations", type=int, default=6, help="of multi-turn traffic (%(default)s)")
    return parser.parse_args(argv)


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",") if part.isdecimal() and int(part) > 0]
    if len(numbers) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list like 1,8,32")
    return numbers


def _contenders(text: str) -> list[Contender]:
    chosen = []
    for part in text.split(","):
        name, _, weights = part.partition(":")
        if name not in SERVERS or (weights and weights not in SERVERS[name]):
            known = ", ".join(f"{name}:{'|'.join(kinds)}" for name, kinds in SERVERS.items())
            raise argparse.ArgumentTypeError(f"{part!r} is none of {known}")
        chosen += [Contender(name, one) for one in ((weights,) if weights else SERVERS[name])]
    return chosen


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
