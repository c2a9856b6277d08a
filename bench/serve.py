"""Fulmen's server beside the installed peers' on the same random AFMoE weights: throughput and waits under load.

    python bench/serve.py --json > cells.json           # shape A at 1, 8 and 32 clients
    python bench/serve.py --shape S --clients 1,8       # the small shape: overhead decides

Peers come from `python bench/peers/install.py vllm --into DIR` and are found by ``--peers DIR``. One that cannot
run is named, with the reason, and left out. Servers run one at a time on 127.0.0.1, pinned to two cores, which
the client shares: its part of a core stands in every cell. Nothing else should run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.engines import find
from inference.measurement import model_folder
from inference.names import names_of
from inference.shapes import SHAPES
from serving.served_folder import fulmen_folder, served_folder
from serving.server_process import ServerError, ServerProcess, free_port

from fulmen_core.errors import UserError
from fulmen_serving.load.generator import Load, run_load
from fulmen_serving.load.report import Slo
from fulmen_serving.load.target import Target
from fulmen_serving.load.traffic import Traffic

_START_PATIENCE = 600.0  # seconds: a first start compiles
_SERVERS = ("fulmen", "vllm", "llama")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 2 if what was asked for cannot be, 130 after Ctrl-C."""
    args = _parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: servers end with the driver
    found, missing = find(args.peers, {})
    if "llama" in found:
        del found["llama"]
        missing["llama"] = "its random weights are a GGUF file without a vocabulary, which no chat server can read"
    wanted = [name for name in args.servers if name in found]
    for name in args.servers:
        if name in missing:
            say(f"left out: {name}: {missing[name]}")
    if not wanted:
        say("nothing to measure: no server is installed")
        return 2
    shape = SHAPES[args.shape]
    if not (args.work / shape.name / "model").exists() and "transformers" not in found:
        say("transformers writes the weights that all servers read: `pip install transformers`")
        return 2
    model = model_folder(shape, args.work, found.get("transformers", Path(sys.executable)))
    folders = dict.fromkeys(wanted, served_folder(model, model.parent / "served"))
    if "fulmen" in wanted:
        folders["fulmen"] = fulmen_folder(folders["fulmen"], model.parent / "served-fulmen")
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else [0, 1]
    cells = []
    for name in wanted:
        port = free_port()
        command, environment = _command(name, found[name], folders[name], port, max(args.clients), cores, args)
        log = model.parent / f"serve-{name}.log"
        with ServerProcess(command, port, cores, log, environment) as server:
            try:
                ready = server.wait_ready(_START_PATIENCE)
                say(f"{shape.name}: {name} ready after {ready:.1f} s")
                cells += [_cell(name, server.url, clients, args) | {"ready_s": ready} for clients in args.clients]
            except (ServerError, UserError) as error:
                say(f"{shape.name}: {name} left out: {error}")
                missing[name] = str(error)
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


def _command(
    name: str, python: Path, folder: Path, port: int, most: int, cores: Sequence[int], args: argparse.Namespace
) -> tuple[list[str], dict[str, str]]:
    """How a server is started: bfloat16, room for `most` answers at once, no prefix cache."""
    context = str(args.prompt_tokens + args.output_tokens + 128)
    if name == "fulmen":
        options = ["--dtype", "bfloat16", "--backend", "cpu", "--max-sequences", str(most), *args.fulmen_options]
        options += [] if args.guard else ["--no-guard"]
        options += ["--max-context", context, "--port", str(port), "--name", "bench"]
        return [str(python), "-m", "fulmen_core", "--threads", "2", "serve", "--model", str(folder), *options], {}
    options = ["--dtype", "bfloat16", "--host", "127.0.0.1", "--port", str(port), "--served-model-name", "bench"]
    options += ["--max-model-len", context, "--max-num-seqs", str(most), "--no-enable-prefix-caching", "--seed", "0"]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
    }
    return [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *options], environment


def _cell(name: str, url: str, clients: int, args: argparse.Namespace) -> dict[str, Any]:
    traffic = Traffic("random", args.prompt_tokens, args.output_tokens)
    load = Load(clients, None, max(args.requests, 2 * clients), warmup=clients)

    async def measure() -> dict[str, Any]:
        async with Target(url) as target:
            return await run_load(target, traffic, load, Slo())

    result = asyncio.run(measure())
    engine = result["fulmen"]
    say(f"{name} at {clients} clients: {result['tokens_per_s']:.1f} tokens/s, errors {result['errors']}")
    return {
        "server": name,
        "clients": clients,
        "tokens_per_s": result["tokens_per_s"],
        "ttft_p95_ms": result["ttft_ms"]["p95"],
        "itl_p50_ms": result["itl_ms"]["p50"] if result["itl_ms"] else None,
        "busy": engine["busy"] if engine else None,
        "batch": engine["batch"] if engine else None,
        "completed": result["completed"],
        "output_tokens": result["output_tokens"],
        "tokens_counted_by": result["tokens_counted_by"],
        "errors": result["errors"],
        "client_cpu_share": result["client"]["cpu_share"],
        "client_bottleneck": result["client"]["bottleneck"],
    }


def _add_ratios(cells: list[dict[str, Any]]) -> None:
    """Throughput over that of each peer at as many clients; None without one. Peers' own cells have them too."""
    speed = {(cell["server"], cell["clients"]): cell["tokens_per_s"] for cell in cells}
    for cell in cells:
        for field, peer in (("ratio_vs_vllm_cpu", "vllm"), ("ratio_vs_llama_server", "llama")):
            base = speed.get((peer, cell["clients"]))
            cell[field] = cell["tokens_per_s"] / base if base else None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = Path("~/.cache/fulmen-bench").expanduser()
    parser.add_argument("--json", action="store_true", help="print the cells as JSON on stdout")
    parser.add_argument("--work", type=Path, default=home, help="weights and conversions, kept (%(default)s)")
    parser.add_argument("--peers", type=Path, default=home / "peers", help="where peers are installed (%(default)s)")
    parser.add_argument("--shape", choices=list(SHAPES), default="A")
    parser.add_argument("--clients", type=_numbers, default=[1, 8, 32], help="e.g. 1,8,32")
    parser.add_argument(
        "--servers", type=names_of("server", _SERVERS), default=list(_SERVERS), help="of " + ", ".join(_SERVERS)
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
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    return parser.parse_args(argv)


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",") if part.isdecimal() and int(part) > 0]
    if len(numbers) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list like 1,8,32")
    return numbers


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
