"""A real `fulmen serve` under mixed load for as long as you like: every answer is compared, nothing may leak.

    python bench/soak.py --minutes 60 --json > soak.json
    python bench/soak.py --minutes 5 --model DIR --clients 16

Many questions (chat, completions, several choices, stop strings, shared prefixes, conversations, embeddings; greedy or
with a seed; of the model and of LoRA adapters, one more of them than are loaded at once) are asked one by one of a
server that keeps no prefixes. Then clients ask them at random of a second server, whole or as streams, hang up in the
middle, send what is malformed, and the model's process is killed now and then. That server is batch-invariant: every
answer must equal the one that was got alone, to the last character and the last bit of a vector. At the end nothing may
be running or queued, pages, kept prefixes, threads, files and processes must be as many as at the beginning, and memory
must not have grown.

Prints figures; exits 1 on any fault, 2 if it cannot begin.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from inference.engines import find
from inference.folders import add_folders
from inference.measurement import model_folder
from inference.shapes import SHAPES
from serving.served_folder import fulmen_folder, served_folder
from serving.server_process import ServerError, ServerProcess, free_port
from soaking.asking import WrongAnswer, ask
from soaking.load import Load
from soaking.questions import Question, Questions
from soaking.random_adapters import write_adapters
from soaking.server_state import Growth, ProcessState, children, growth, metrics, model_process, process_state

_START_PATIENCE = 300.0  # seconds
_QUIET_PATIENCE = 30.0
_FLUSH_TOKENS = 40
_WARM_UP = 0.1  # of the time
_KILLS_UNTIL = 0.5  # of the time; then a model process lives to the end
_SETTLING = 20.0  # seconds: of memory, after the first looks at a process
_MANY = 48  # requests at once that fill every pool of threads
_SETTLED_ROUNDS = 8  # of so many requests that start no thread


@dataclass(frozen=True, slots=True)
class Quiet:
    """A server that nobody asks anything: what it holds."""

    used_pages: int
    kept_prefixes: int
    server: ProcessState
    model: ProcessState | None
    children: int


def main(argv: Sequence[str] | None = None) -> int:
    """Soak and print. Returns 1 on any fault, 2 if it cannot begin, 130 after Ctrl-C."""
    args = _parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: servers end with the driver
    if not Path("/proc/self/task").exists():
        say("a soak looks at processes in /proc, which this system has not")
        return 2
    try:
        figures = asyncio.run(_soak(args))
    except ServerError as error:
        say(str(error))
        return 2
    for fault in figures["faults"]:
        say(f"fault: {fault}")
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            if name != "faults":
                print(f"{name}: {value}")
    return int(bool(figures["faults"]))


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


async def _soak(args: argparse.Namespace) -> dict[str, Any]:
    model = args.model or _random_model(args)
    source = random.Random(args.seed)
    config = json.loads((model / "config.json").read_text())
    context = min(1024, int(config["max_position_embeddings"]))
    adapters = write_adapters(model, args.work / "soak-adapters", args.adapters, args.seed)
    made = Questions(source, int(config["vocab_size"]), context // 32, ["soak", *adapters], embeds=True)
    with _server(args, model, context, prefixes=0) as alone:
        begin = time.monotonic()
        questions = await _answers_alone(alone.url, made, args.questions)
        say(f"{len(questions)} questions answered alone in {time.monotonic() - begin:.0f} s")
    with _server(args, model, context, prefixes=args.sequences) as server:
        load = Load(server.url, server.pid, questions, args.clients, source)
        seconds = 60 * args.minutes
        await load.run(_WARM_UP * seconds)
        await _fill_pools(server)
        before = await _quiet(server, args, source, int(config["vocab_size"]), load)
        load.looks.clear()
        begin, tokens = time.monotonic(), load.tokens
        await load.run((1 - _WARM_UP) * seconds, args.kill_every, (_KILLS_UNTIL - _WARM_UP) * seconds)
        rate = (load.tokens - tokens) / (time.monotonic() - begin)
        after = await _quiet(server, args, source, int(config["vocab_size"]), load)
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            samples = await metrics(client)
    return _figures(args, load, before, after, samples) | {"questions": len(questions), "tokens_per_s": rate}


async def _answers_alone(url: str, made: Questions, count: int) -> list[Question]:
    """Ask `count` questions and what follows from their answers, one after the other; keep those that are answered."""
    questions: list[Question] = []
    async with httpx.AsyncClient(base_url=url, timeout=300.0, trust_env=False) as client:
        for number in range(count):
            waiting = [made.opening(number)]
            while waiting:
                asked = waiting.pop()
                try:
                    asked.expected = await ask(client, asked)
                except WrongAnswer as error:
                    if "maximum context length" not in str(error):
                        raise ServerError(f"a question that nobody disturbs is not answered: {error}") from error
                    continue
                questions.append(asked)
                if asked.streams:
                    waiting += made.follow_ups(asked, asked.expected["texts"])
    return questions


async def _fill_pools(server: ServerProcess) -> None:
    """Threads are started when they are first needed: ask until no more come, before they are counted."""
    # a connection each: one that waits for the next round may be closed by the server as it is used again
    limits = httpx.Limits(max_connections=_MANY, max_keepalive_connections=0)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("v1/completions", {"model": "soak", "prompt": "all at once", "max_tokens": 1}),
        ("tokenize", {"model": "soak", "prompt": "all at once " * 1_500}),  # long, so that all threads are needed
    ]
    threads: list[int] = []
    async with httpx.AsyncClient(base_url=server.url, timeout=120.0, trust_env=False, limits=limits) as client:
        while len(set(threads[-_SETTLED_ROUNDS:])) != 1 or len(threads) < _SETTLED_ROUNDS:
            for path, body in asked:
                for response in await asyncio.gather(*(client.post(path, json=body) for _ in range(_MANY))):
                    response.raise_for_status()
            state = process_state(server.pid)
            threads.append(state.threads if state else 0)


async def _quiet(
    server: ServerProcess, args: argparse.Namespace, source: random.Random, vocab_size: int, load: Load
) -> Quiet:
    """Wait until nothing runs, replace every kept prefix by one of known size, and look at what is held."""
    async with httpx.AsyncClient(base_url=server.url, timeout=120.0, trust_env=False) as client:
        deadline = time.monotonic() + _QUIET_PATIENCE
        while True:
            samples = await metrics(client)
            left = {name: samples[f"fulmen_{name}"] for name in ("running_requests", "queued_requests")}
            if not any(left.values()):
                break
            if time.monotonic() > deadline:
                load.fault(f"nobody asks anything any more, and still {left}")
                break
            await asyncio.sleep(0.1)
        for _ in range(2 * args.sequences + 2):  # as many as there are slots, and some
            ids = [source.randrange(vocab_size) for _ in range(_FLUSH_TOKENS)]
            body = {"model": "soak", "prompt": ids, "max_tokens": 1, "temperature": 0}
            (await client.post("v1/completions", json=body)).raise_for_status()
        samples = await metrics(client)
    await asyncio.sleep(1.0)  # the connections that were just closed
    pid = model_process(server.pid)
    state = process_state(server.pid)
    if state is None:
        raise ServerError(f"the server is gone (log: {server.log})")
    return Quiet(
        int(samples["fulmen_kv_used_pages"]),
        int(samples["fulmen_kept_prefixes"]),
        state,
        process_state(pid) if pid else None,
        len(children(server.pid)),
    )


def _figures(
    args: argparse.Namespace, load: Load, before: Quiet, after: Quiet, samples: dict[str, float]
) -> dict[str, Any]:
    """What is printed. Looks for what leaked, and notes it as faults."""
    held = {
        "kv_used_pages": (before.used_pages, after.used_pages),
        "kept_prefixes": (before.kept_prefixes, after.kept_prefixes),
        "children": (before.children, after.children),
        "server_threads": (before.server.threads, after.server.threads),
        "server_files": (before.server.files, after.server.files),
    }
    if before.model and after.model:
        held["model_threads"] = (before.model.threads, after.model.threads)
        held["model_files"] = (before.model.files, after.model.files)
    for name, (first, last) in held.items():
        if last > first or (name in ("kv_used_pages", "kept_prefixes") and last != first):
            load.fault(f"{name}: {first} when it began, {last} when all was over")

    server = _settled_growth([(seconds, one.rss) for seconds, one, _ in load.looks])
    pid = after.model.pid if after.model else 0
    model = _settled_growth([(seconds, one.rss) for seconds, _, one in load.looks if one and one.pid == pid])
    for name, grown in (("server", server), ("model process", model)):
        if grown and grown.last_mib - grown.first_mib > args.max_growth_mib:
            load.fault(f"memory of the {name} grew from {grown.first_mib:.1f} to {grown.last_mib:.1f} MiB")
    if samples["fulmen_model_restarts_total"] != load.counts["kills"]:
        load.fault(f"{load.counts['kills']} kills, and {samples['fulmen_model_restarts_total']:.0f} restarts")
    return {
        "minutes": args.minutes,
        "clients": args.clients,
        "seed": args.seed,
        "requests": dict(sorted(load.counts.items())),
        "compared": dict(sorted(load.kinds.items())),
        "busy": samples["fulmen_model_busy_fraction"],
        "reused_prompt_tokens": int(samples["fulmen_reused_prompt_tokens_total"]),
        "preemptions": int(samples["fulmen_preemptions_total"]),
        "restarts": int(samples["fulmen_model_restarts_total"]),
        "held_before_and_after": held,
        "server_rss": asdict(server) if server else None,
        "model_rss": asdict(model) if model else None,
        "faults": load.faults,
    }


def _settled_growth(looks: Sequence[tuple[float, int]]) -> Growth | None:
    settled = [(seconds, rss) for seconds, rss in looks if seconds >= looks[0][0] + _SETTLING]
    return growth([seconds for seconds, _ in settled], [rss for _, rss in settled])


def _server(args: argparse.Namespace, model: Path, context: int, prefixes: int) -> ServerProcess:
    """A batch-invariant server of `model`, ready, on the cores that this process may use."""
    port = free_port()
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "fulmen_core", "--threads", str(len(cores)), "serve", "--model", str(model)]
    command += ["--name", "soak", "--backend", "cpu", "--batch-invariant", "--port", str(port)]
    command += ["--max-context", str(context), "--max-sequences", str(args.sequences)]
    command += ["--cached-prefixes", str(prefixes), "--max-waiting", str(4 * args.clients + _MANY)]
    command += [] if args.guard else ["--no-guard"]
    if args.adapters:
        loaded = str(max(1, args.adapters - 1))
        command += ["--adapters", str(args.work / "soak-adapters"), "--max-adapters", loaded]
    log = args.work / f"soak-{'kept' if prefixes else 'alone'}.log"
    server = ServerProcess([*command, *args.fulmen_options], port, cores, log, {})
    try:
        server.wait_ready(_START_PATIENCE)
    except BaseException:
        server.close()
        raise
    return server


def _random_model(args: argparse.Namespace) -> Path:
    """The small shape of `bench/serve.py`, in Fulmen's own files."""
    place: Path = args.work / "S" / "served-fulmen"
    if not place.exists():
        transformers = find(args.peers, {})[0].get("transformers")
        if transformers is None:
            raise ServerError(
                "there is no --model, and no transformers to write random weights: give one, or install it"
            )
        model = model_folder(SHAPES["S"], args.work, transformers)
        fulmen_folder(served_folder(model, model.parent / "served"), place)
    return place


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of load (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on stdout")
    parser.add_argument("--model", type=Path, metavar="DIR", help="what is served; default: random weights of shape S")
    add_folders(parser)
    parser.add_argument("--clients", type=int, default=12, help="that ask at once (%(default)s)")
    parser.add_argument("--sequences", type=int, default=6, help="answers at once, and prefixes kept (%(default)s)")
    parser.add_argument("--questions", type=int, default=200, help="asked alone first (%(default)s)")
    parser.add_argument("--adapters", type=int, default=3, help="LoRA adapters of the model (%(default)s)")
    parser.add_argument("--kill-every", type=float, default=40.0, metavar="S", help="seconds; 0: never (%(default)s)")
    parser.add_argument("--max-growth-mib", type=float, default=16.0, metavar="N", help="of a process (%(default)s)")
    parser.add_argument("--guard", action="store_true", help="serve behind RAISE")
    parser.add_argument("--fulmen-options", type=str.split, default=[], metavar="'...'", help="more for `fulmen serve`")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (%(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
