"""What the engine itself costs and saves, on the random AFMoE weights of the other benchmarks, without HTTP.

    python bench/engine.py --json > engine.json           # shape A
    python bench/engine.py --shape S --context 2048       # the small shape

Cells: bytes of keys and values beside the plan's arithmetic; the first token of a second turn beside a cold one's;
time of a step outside the model at 32 sequences; decoding with n-gram guesses beside without, on text that repeats
itself and on text that does not. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from inference.engines import find
from inference.folders import add_folders
from inference.measurement import model_folder
from inference.shapes import SHAPES
from numpy.typing import NDArray
from serving.served_folder import fulmen_folder, served_folder

from fulmen_backend_cpu.native_runner import NativeRunner
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
from fulmen_serving.engine.core import EngineCore
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.engine.speculation import NGramProposer


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 2 if the weights cannot be had."""
    args = _parse(argv)
    shape = SHAPES[args.shape]
    found, _ = find(args.peers, {})
    if not (args.work / shape.name / "model").exists() and "transformers" not in found:
        say("transformers writes the weights: `pip install transformers`")
        return 2
    model = model_folder(shape, args.work, found.get("transformers", Path(sys.executable)))
    folder = fulmen_folder(served_folder(model, model.parent / "served"), model.parent / "served-fulmen")
    random = np.random.default_rng(args.seed)
    cells: dict[str, Any] = {"shape": shape.name, "context": args.context, "threads": args.threads}
    cells |= _memory_and_turns(folder, args, shape.vocab_size, random)
    cells |= _overhead(folder, args, shape.vocab_size, random)
    cells |= _guessing(folder, args, shape.vocab_size, random)
    for name, value in cells.items():
        say(f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}")
    if args.json:
        print(json.dumps(cells))
    return 0


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def _runner(folder: Path, args: argparse.Namespace, **limits: int) -> NativeRunner:
    wanted = {"max_sequences": 1, "max_context": args.context, "max_step_tokens": 512, "threads": args.threads} | limits
    return NativeRunner(folder, EngineLimits(**wanted), "bfloat16")


def _memory_and_turns(
    folder: Path, args: argparse.Namespace, vocabulary: int, random: np.random.Generator
) -> dict[str, float]:
    """KV bytes of one whole context; seconds to the first token of a cold prompt and of the turn after it."""
    alone = _runner(folder, args)
    planned = alone.cache.bytes_per_sequence(args.context, 2)
    reserved = alone.kv_bytes()
    alone.close()
    core = EngineCore(_runner(folder, args, cached_sequences=2))
    first, second = [], []
    for turn in range(args.rounds):
        history = random.integers(3, vocabulary, args.context * 3 // 4).tolist()
        answer, cold = _first_token(core, f"cold {turn}", history)
        _, warm = _first_token(core, f"warm {turn}", [*history, *answer, *random.integers(3, vocabulary, 32).tolist()])
        first.append(cold)
        second.append(warm)
    core.close()
    cold_s, warm_s = statistics.median(first), statistics.median(second)
    return {
        "kv_bytes_planned": planned,
        "kv_bytes": reserved,
        "kv_bytes_ratio": reserved / planned,
        "cold_first_token_s": cold_s,
        "second_turn_first_token_s": warm_s,
        "second_turn_ratio": warm_s / cold_s,
    }


def _first_token(core: EngineCore, name: str, prompt: list[int]) -> tuple[list[int], float]:
    core.add(GenerationRequest(name, prompt, SamplingParams(temperature=0, max_tokens=16), (0, 0), frozenset()))
    begun, first, tokens = time.perf_counter(), 0.0, []
    while core.has_work:
        for event in core.step().events:
            first = first or time.perf_counter() - begun
            tokens.append(event.token)
    return tokens, first


def _overhead(folder: Path, args: argparse.Namespace, vocabulary: int, random: np.random.Generator) -> dict[str, float]:
    """Milliseconds of a decode step outside the model at 32 sequences: greedy, and drawn at temperature 1."""
    cells = {}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        core = EngineCore(_runner(folder, args, max_sequences=32, max_context=256, cached_sequences=16))
        for index in range(32):
            prompt = random.integers(3, vocabulary, 64).tolist()
            params = SamplingParams(temperature=temperature, max_tokens=128)
            core.add(GenerationRequest(str(index), prompt, params, (index, 0), frozenset()))
        outside = []
        while core.has_work:
            begun = time.perf_counter()
            outcome = core.step()
            if len(outcome.events) == 32:
                outside.append(time.perf_counter() - begun - outcome.model_seconds)
        core.close()
        cells[f"overhead_{name}_ms"] = 1000 * statistics.median(outside)
    return cells


def _guessing(folder: Path, args: argparse.Namespace, vocabulary: int, random: np.random.Generator) -> dict[str, float]:
    """Tokens a second of one sequence with guesses over without, where answers copy their prompt and where not.

    The sequence is forced along a text, as if the model had drawn it: random weights copy nothing by themselves.
    """
    passage = random.integers(3, vocabulary, 96).tolist()
    texts = {"copying": passage * 3, "novel": random.integers(3, vocabulary, 288).tolist()}
    cells: dict[str, float] = {}
    for name, text in texts.items():
        along = partial(_Along, text[96:])
        speeds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(args.rounds):
            for guesses in (False, True):
                runner = _runner(folder, args, max_context=512, draft_tokens=4)
                core = EngineCore(runner, along, NGramProposer() if guesses else None)
                params = SamplingParams(temperature=0, max_tokens=192)
                core.add(GenerationRequest("a", text[:96], params, (0, 0), frozenset(), grammar="along"))
                core.step()
                begun = time.perf_counter()
                while core.has_work:
                    core.step()
                speeds[guesses].append(191 / (time.perf_counter() - begun))
                core.close()
        cells[f"ngram_speedup_{name}"] = statistics.median(speeds[True]) / statistics.median(speeds[False])
    return cells


class _Along:
    """A `TokenConstraint` that allows one text."""

    def __init__(self, text: Sequence[int], _grammar: str) -> None:
        self._text, self._at = text, 0

    def allows(self, token: int) -> bool:
        return token == self._text[self._at]

    def allowed(self, vocab_size: int) -> NDArray[np.bool_]:
        mask_V = np.zeros(vocab_size, np.bool_)
        mask_V[self._text[self._at]] = True
        return mask_V

    def accept(self, token: int) -> None:  # noqa: ARG002 - it is the only one allowed
        self._at += 1

    @property
    def finished(self) -> bool:
        return self._at == len(self._text)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the cells as JSON on stdout")
    add_folders(parser)
    parser.add_argument("--shape", choices=list(SHAPES), default="A")
    parser.add_argument("--context", type=int, default=8192, help="tokens of a whole context (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
