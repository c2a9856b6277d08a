"""`fulmen generate`: one prompt in, one completion out, on whichever backend serves the model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen_core.backend_options import add_backend_options, parse_backend_options, refuse_unknown_options
from fulmen_core.cli import arguments, context
from fulmen_core.cli.model_source import model_directory
from fulmen_core.cli.output import print_json
from fulmen_core.errors import UserError

if TYPE_CHECKING:
    from argparse import Namespace

    from fulmen_core.model_directory import ModelDirectory
    from fulmen_core.sampling import SamplingParams

_STEP_TOKENS = 512


def run(argv: Sequence[str]) -> int:
    """Complete the prompt and print the text, or with ``--json`` the token ids and timings too."""
    parser = arguments.parser("fulmen generate", "complete a prompt with a model", recipe=False)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a model folder, or a known model")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what the model goes on from")
    parser.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")
    parser.add_argument("--system", metavar="TEXT", help="the system message of the chat")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="new tokens at most (%(default)s)")
    parser.add_argument("--greedy", action="store_true", help="always take the likeliest token")
    parser.add_argument("--temperature", type=float, help="divides the logits; default: the model's")
    parser.add_argument("--top-p", type=float, help="keep the likeliest tokens of this probability")
    parser.add_argument("--seed", type=int, help="makes the draws repeatable")
    parser.add_argument("--backend", default="auto", help="a backend's name; default: the best that serves the model")
    add_backend_options(parser)
    parser.add_argument("--dtype", help="what the backend computes in; default: an artefact's own, else float32")
    args = parser.parse_args(argv)
    if args.system is not None and not args.chat:
        raise UserError("--system needs --chat", remedy="a completion has no system message")
    if args.greedy and args.temperature is not None:
        raise UserError("--greedy and --temperature contradict each other", remedy="leave one of them out")
    result = _generate(args)
    if args.json:
        print_json(result)
    else:
        print(result["text"])
    return 0


def _generate(args: Namespace) -> dict[str, Any]:
    from fulmen_core.generation import generate
    from fulmen_core.model_directory import ModelDirectory, choose_backend
    from fulmen_core.runner import EngineLimits
    from fulmen_core.tokenizer import load_tokenizer

    begun = time.perf_counter()
    path = model_directory(args.model)
    directory = ModelDirectory.inspect(path)
    params = _params(args, directory)
    tokenizer = load_tokenizer(path)
    tokenizer.check_model_vocab(directory.vocab_size, str(path))
    prompt_ids = tokenizer.encode_chat(_messages(args), True) if args.chat else tokenizer.encode_prompt(args.prompt)
    context_tokens = len(prompt_ids) + args.max_tokens
    if context_tokens > directory.max_context:
        raise UserError(
            f"{len(prompt_ids)} tokens of the prompt and {args.max_tokens} new ones exceed the {directory.max_context} "
            "the model was made for",
            remedy="shorten the prompt or give a smaller --max-tokens",
        )
    backend = choose_backend(context.registry(), args.backend, directory.format)
    options = parse_backend_options(args.backend_option)
    refuse_unknown_options(backend, options)
    limits = EngineLimits(1, context_tokens, _STEP_TOKENS, context.settings().threads or 0)
    chosen: dict[str, Any] = dict(options)
    runner = backend.load_runner(path, limits, args.dtype or directory.dtype_on(backend), **chosen)
    try:
        loaded = time.perf_counter()
        stop_ids = directory.stop_ids() | frozenset(tokenizer.stop_ids)
        [token_ids] = generate(runner, [prompt_ids], params, stop_ids)
        done = time.perf_counter()
    finally:
        runner.close()
    return {
        "model": str(path),
        "backend": backend.name,
        "prompt_token_ids": prompt_ids,
        "token_ids": token_ids,
        "text": tokenizer.decode(token_ids),
        "finish_reason": "stop" if token_ids[-1] in stop_ids else "length",
        "load_seconds": round(loaded - begun, 3),
        "generate_seconds": round(done - loaded, 3),
        "tokens_per_s": round(len(token_ids) / (done - loaded), 1),
    }


def _messages(args: Namespace) -> list[dict[str, str]]:
    system = [] if args.system is None else [{"role": "system", "content": args.system}]
    return [*system, {"role": "user", "content": args.prompt}]


def _params(args: Namespace, directory: ModelDirectory) -> SamplingParams:
    from fulmen_core.sampling import SamplingParams

    temperature = directory.default("temperature", 1.0) if args.temperature is None else args.temperature
    return SamplingParams(
        temperature=0.0 if args.greedy else temperature,
        top_p=directory.default("top_p", 1.0) if args.top_p is None else args.top_p,
        max_tokens=args.max_tokens,
        seed=args.seed,
    )
