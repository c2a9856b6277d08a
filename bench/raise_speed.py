"""What RAISE costs on one core: milliseconds a text at input, microseconds a token and characters held on a stream.

    python bench/raise_speed.py                          # the default policy, ordinary text that is made up
    python bench/raise_speed.py --texts en=FILE --texts zh=FILE --json
    python bench/raise_speed.py --server-tokens-per-second 900

A text has 200 tokens, counted as 900 characters of English or 300 of Chinese (4.5 and 1.5 a token, as a bilingual
tokenizer of 100,000 entries has). FILE is JSON Lines (gzip or not) with ``"text"`` or ``"prompt"``, or plain text; its
texts are joined and cut to that length. Figures are medians over the texts of the least of `--rounds` runs; only
``whole_mean_ms`` is a mean over them, as few texts may take much longer than most.

* ``views``: the views that a text is shown in; each detector: its time over all of them; ``whole``: all of it with the
  panel's own work, as `judge_input` does it.
* ``per_token_us``: what feeding one token to a streamed answer costs, in this process, and ``in_process_us`` by the
  server's guard, which is a process of its own; ``held``: characters held back after a token, on average and at most;
  ``first``: characters of an answer that come before the first ones are delivered.
* ``share``: of a server's time, if it makes that many tokens a second on this core; with a core of its own for the
  guard it is less.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fulmen_core.registry import Discovery, Registry
from fulmen_safety.guard import RaiseGuard, make
from fulmen_safety.normalise import views
from fulmen_serving.guarding.guard_process import GuardProcess

_TOKENS = 200
_CHARACTERS = {"en": 4.5, "zh": 1.5}  # a token

#: Ordinary sentences; a text is made of them by chance.
_SENTENCES = {
    "en": (
        "The library opens at nine and closes at six, except on public holidays.",
        "She planted tomatoes, beans and a row of marigolds along the south wall.",
        "A matrix is invertible if and only if its determinant is not zero.",
        "You can sort the list in place, or make a sorted copy and keep the original.",
        "Bring the water to a boil, add the pasta and stir it for the first minute.",
        "In 1911 the two expeditions set out from opposite ends of the ice shelf.",
        "What would you recommend for a weekend in the mountains with small children?",
        "Prices rose by 3.2% last year, mostly because of energy and rents.",
        "The function returns None when the key is missing, so check before you use it.",
        "He had never seen the sea, and yet he painted it every single day.",
        "Write a short note that thanks the team and names the next three steps.",
        "Light travels about 300,000 kilometres in a second; sound takes three seconds for one.",
    ),
    "zh": (
        "图书馆早上九点开门，晚上六点关门，节假日除外。",
        "她沿着南墙种了西红柿、豆角和一排金盏花。",
        "当且仅当行列式不为零时，矩阵才是可逆的。",
        "可以直接对列表排序，也可以复制一份再排序，保留原来的顺序。",
        "水烧开以后放入面条，头一分钟要不停地搅拌。",
        "1911年，两支探险队从冰架的两端同时出发。",
        "周末想带孩子去山里玩，您有什么推荐的地方吗？",
        "去年物价上涨了3.2%，主要是因为能源和房租。",
        "如果键不存在，函数会返回空值，使用前请先检查。",
        "他从来没有见过大海，却每天都在画海。",
        "请写一封简短的信，感谢团队，并说明接下来的三个步骤。",
        "光每秒大约传播三十万公里，声音传播一公里需要三秒。",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each language and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, help="a policy file (the default policy)")
    parser.add_argument("--texts", action="append", default=[], metavar="LANGUAGE=FILE")
    parser.add_argument("--count", type=int, default=20, help="texts of each language (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of which the least counts (%(default)s)")
    parser.add_argument("--server-tokens-per-second", type=float, metavar="N")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    files = dict(given.split("=", 1) for given in args.texts)
    guard = make(args.policy, Registry.discover())
    served = GuardProcess(args.policy, Discovery())
    served.start()
    try:
        result = {
            language: measure(guard, served, texts_of(language, files.get(language), args.count), language, args.rounds)
            for language in _CHARACTERS
        }
    finally:
        served.close()
    if rate := args.server_tokens_per_second:
        for figures in result.values():
            figures["stream"]["share"] = round(rate * figures["stream"]["in_process_us"] / 1e6, 4)
    print(json.dumps(result, indent=2) if args.json else _shown(result))
    return 0


def texts_of(language: str, file: str | None, count: int) -> list[str]:
    """Return `count` texts of 200 tokens."""
    size = int(_TOKENS * _CHARACTERS[language])
    choices = random.Random(0)
    if file is None:
        blank = " " if language == "en" else ""
        return [blank.join(choices.choices(_SENTENCES[language], k=30))[:size] for _ in range(count)]
    path = Path(file)
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = [line for line in raw.decode("utf-8").splitlines() if line.strip()]
    if ".jsonl" in path.name:
        rows = [json.loads(line) for line in lines]
        lines = [row.get("text") or row.get("prompt") or "" for row in rows]
    whole = "\n".join(lines)
    starts = [choices.randrange(max(1, len(whole) - size)) for _ in range(count)]
    return [whole[start : start + size] for start in starts]


def measure(
    guard: RaiseGuard, served: GuardProcess, texts: Sequence[str], language: str, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the figures of one language: at input, and of a streamed output."""
    seconds = {
        "views": [_least(partial(views, text, decoded=True), rounds) for text in texts],
        "whole": [_least(partial(guard.judge_input, _asked(text)), rounds) for text in texts],
    }
    figures = {f"{name}_ms": statistics.median(taken) * 1000 for name, taken in seconds.items()}
    figures["whole_mean_ms"] = statistics.mean(seconds["whole"]) * 1000
    readings = [[guard.panel.read(text, "input") for _ in range(rounds)] for text in texts]
    for name in readings[0][0].milliseconds:
        figures[f"{name}_ms"] = statistics.median(
            min(reading.milliseconds[name] for reading in again) for again in readings
        )
    figures["views_shown"] = statistics.mean(len(again[0].shown) for again in readings)
    streamed = [_stream(guard, text, language, rounds) for text in texts]
    output = {name: statistics.median(one[name] for one in streamed) for name in streamed[0]}
    output["held_most"] = max(one["held_most"] for one in streamed)
    output["in_process_us"] = statistics.median(
        _stream(served, text, language, 2)["per_token_us"] for text in texts[:5]
    )
    return {"input": _rounded(figures), "stream": _rounded(output)}


def _stream(guard: RaiseGuard | GuardProcess, text: str, language: str, rounds: int) -> dict[str, float]:
    """Stream a text, a token at a time."""
    step = _CHARACTERS[language]
    cuts = [int(step * place) for place in range(int(len(text) / step) + 2)]
    tokens = [text[start:end] for start, end in itertools.pairwise(cuts) if text[start:end]]
    held: list[int] = []
    first = 0

    def deliver() -> None:
        nonlocal first
        stream = guard.open_output(_asked("?"))
        given = delivered = 0
        held.clear()
        for token in tokens:
            given += len(token)
            delivered += len(stream.feed(token).text)
            held.append(given - delivered)
            if not delivered:
                first = given
        stream.finish()

    seconds = _least(deliver, rounds)
    return {
        "per_token_us": seconds / len(tokens) * 1e6,
        "held": statistics.mean(held),
        "held_most": max(held),
        "first": first,
    }


def _least(task: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        task()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}


def _shown(result: dict[str, dict[str, dict[str, float]]]) -> str:
    rows = []
    for language, parts in result.items():
        for part, figures in parts.items():
            rows.append(f"{language} {part}: " + "  ".join(f"{name} {value:g}" for name, value in figures.items()))
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
