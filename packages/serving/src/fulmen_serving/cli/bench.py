"""`fulmen bench`: measurements a user can take. Each is a word after the verb; `serve` measures a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import note, print_json, print_table
from fulmen_core.errors import UserError
from fulmen_core.suggestions import closest
from fulmen_serving.cli.api_key_option import add_api_key_option, api_key


def run(argv: Sequence[str]) -> int:
    """Run the measurement that the first word names.

    Raises:
        UserError: there is none of that name, an argument is at fault, or the server cannot be measured.
    """
    word, rest = (argv[0], argv[1:]) if argv else ("", [])
    if word in MEASUREMENTS:
        return MEASUREMENTS[word](rest)
    if word in ("", "--help", "-h"):
        print(
            "usage: fulmen bench MEASUREMENT ...\n\n  serve    drive an OpenAI-compatible server and time its answers"
        )
        if word:
            return 0
        raise UserError("fulmen bench needs to know what to measure", remedy=f"one of {', '.join(MEASUREMENTS)}")
    near = closest(word, MEASUREMENTS)
    remedy = f"did you mean '{near}'?" if near else f"there is {', '.join(MEASUREMENTS)}"
    raise UserError(f"fulmen bench measures no {word!r}", remedy=remedy)


def serve(argv: Sequence[str]) -> int:
    """Drive a server and print how it did.

    Raises:
        UserError: an argument is at fault, the server cannot be reached, or no request succeeds.
    """
    arguments = parser("fulmen bench serve", "drive an OpenAI-compatible server and time its answers", recipe=False)
    arguments.add_argument("--base-url", required=True, metavar="URL", help="e.g. http://127.0.0.1:8000")
    arguments.add_argument("--api", choices=["chat", "completions"], default="chat", help="(%(default)s)")
    arguments.add_argument("--model", default="", metavar="NAME", help="default: the server's first")
    add_api_key_option(arguments)
    arguments.add_argument("--clients", type=int, metavar="C", help="closed loop: so many at once (8)")
    arguments.add_argument("--rate", type=float, metavar="R", help="open loop: Poisson arrivals, R a second")
    arguments.add_argument("--requests", type=int, default=64, metavar="N", help="conversations (%(default)s)")
    arguments.add_argument("--warmup", type=int, default=2, metavar="N", help="before the clock (%(default)s)")
    arguments.add_argument(
        "--traffic", choices=["random", "shared-prefix", "multi-turn"], default="random", help="(%(default)s)"
    )
    arguments.add_argument("--prompt-tokens", type=int, default=128, metavar="N", help="(%(default)s)")
    arguments.add_argument("--output-tokens", type=int, default=64, metavar="N", help="at most (%(default)s)")
    arguments.add_argument("--prefix-tokens", type=int, metavar="N", help="of the shared prefix (256)")
    arguments.add_argument("--turns", type=int, metavar="N", help="of multi-turn conversations (2)")
    arguments.add_argument("--turn-tokens", type=int, metavar="N", help="of later user messages (--prompt-tokens)")
    arguments.add_argument("--seed", type=int, default=0, help="of words and arrivals (%(default)s)")
    arguments.add_argument("--slo-ttft-ms", type=float, metavar="MS", help="goodput: first token within MS")
    arguments.add_argument("--slo-itl-ms", type=float, metavar="MS", help="goodput: mean time between tokens")
    arguments.add_argument("--slo-e2e-ms", type=float, metavar="MS", help="goodput: whole answer within MS")
    arguments.add_argument("--timeout", type=float, default=600.0, metavar="S", help="of one answer (%(default)s)")
    arguments.add_argument("--extra", default="{}", metavar="JSON", help="more fields, e.g. '{\"ignore_eos\": true}'")
    args = arguments.parse_args(argv)
    if args.prefix_tokens is not None and args.traffic != "shared-prefix":
        raise UserError("--prefix-tokens is for --traffic shared-prefix", remedy="leave it out, or choose that traffic")
    for option in ("turns", "turn_tokens"):
        if getattr(args, option) is not None and args.traffic != "multi-turn":
            name = option.replace("_", "-")
            raise UserError(f"--{name} is for --traffic multi-turn", remedy="leave it out, or choose that traffic")
    if not 0 < args.timeout < float("inf"):
        raise UserError(f"a --timeout of {args.timeout:g} s is none", remedy="give seconds above 0")

    import asyncio
    import logging

    from fulmen_serving.load.generator import Load, run_load
    from fulmen_serving.load.report import Slo
    from fulmen_serving.load.target import Target
    from fulmen_serving.load.traffic import Traffic

    logging.getLogger("httpx").setLevel(logging.WARNING)
    turns = (2 if args.turns is None else args.turns) if args.traffic == "multi-turn" else 1
    traffic = Traffic(
        args.traffic,
        args.prompt_tokens,
        args.output_tokens,
        256 if args.prefix_tokens is None else args.prefix_tokens,
        turns,
        args.seed,
        args.turn_tokens or 0,
    )
    clients = 8 if args.clients is None and args.rate is None else args.clients
    load = Load(clients, args.rate, args.requests, args.warmup, args.seed)
    slo = Slo(args.slo_ttft_ms, args.slo_itl_ms, args.slo_e2e_ms)

    async def measure() -> dict[str, Any]:
        target = Target(
            args.base_url,
            api=args.api,
            model=args.model,
            api_key=api_key(args.api_key),
            timeout=args.timeout,
            extra=_extra(args.extra),
        )
        async with target:
            return await run_load(target, traffic, load, slo)

    result = asyncio.run(measure())
    if result["client"]["bottleneck"]:
        note("fulmen: warning: the client itself was late or busy, so the server may be better than this says")
    if result["errors"]:
        note(f"fulmen: warning: {sum(result['errors'].values())} requests failed: {result['errors']}")
    if args.json:
        print_json(result)
    else:
        _print(result)
    return 0


#: What can be measured, by the word after `fulmen bench`.
MEASUREMENTS: dict[str, Callable[[Sequence[str]], int]] = {"serve": serve}


def _extra(text: str) -> dict[str, Any]:
    try:
        extra = json.loads(text)
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise UserError(f"--extra {text!r} is no JSON object", remedy='give one like {"ignore_eos": true}')
    return extra


def _print(result: dict[str, Any]) -> None:
    names = ("mean", "p50", "p90", "p95", "p99", "max")
    labels = {"ttft_ms": "time to first token", "itl_ms": "between tokens", "e2e_ms": "whole answer"}
    rows = [[label, *(f"{result[key][name]:.1f}" for name in names)] for key, label in labels.items() if result[key]]
    print_table(["ms", *names], rows, empty="nothing was answered")
    print(
        f"{result['completed']} answers of {result['model']} in {result['duration_s']:.1f} s: "
        f"{result['tokens_per_s']:.1f} output tokens/s (counted by {result['tokens_counted_by']}), "
        f"{result['requests_per_s']:.2f} requests/s"
    )
    if goodput := result["goodput"]:
        print(f"goodput: {goodput['requests_per_s']:.2f} requests/s, {goodput['share']:.1%} of all keep the limits")
    client = result["client"]
    print(f"client: loop late by {client['loop_lag_p99_ms']:.1f} ms (p99), {client['cpu_share']:.0%} of a core")
    if engine := result["fulmen"]:
        print(f"engine: model busy {engine['busy']:.1%} of its working time, batch {engine['batch']:.1f}")
