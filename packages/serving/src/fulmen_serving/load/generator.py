"""Driving a server: closed loop (so many clients, each waiting for its answer) or open loop (Poisson arrivals)."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from dataclasses import asdict, dataclass
from typing import Any

from fulmen_core.errors import UserError
from fulmen_serving.load.client_health import ClientHealth
from fulmen_serving.load.fulmen_metrics import engine_report, read_metrics
from fulmen_serving.load.report import Slo, summarise
from fulmen_serving.load.target import Target, Timed
from fulmen_serving.load.traffic import Traffic, WordLength, random_words, user_messages

_PROBE_WORDS = (8, 40)


@dataclass(frozen=True, slots=True)
class Load:
    """How much to ask.

    Attributes:
        clients: of the closed loop; None for an open loop.
        rate: conversations that arrive in a second in the open loop, on average; None for a closed loop.
        conversations: in all, warm-up not counted.
        warmup: conversations before the clock starts; they are in no figure.
        seed: of the arrivals.
    """

    clients: int | None = 8
    rate: float | None = None
    conversations: int = 64
    warmup: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.clients is None) == (self.rate is None):
            raise UserError("a load is either closed or open", remedy="give --clients or --rate, one of them")
        if self.clients is not None and self.clients < 1:
            raise UserError(f"{self.clients} clients ask for nothing", remedy="give --clients at least 1")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise UserError(f"a rate of {self.rate} is none", remedy="give --rate in conversations a second, above 0")
        if self.conversations < 1 or self.warmup < 0:
            raise UserError("there is nothing to measure", remedy="give --requests at least 1 and --warmup at least 0")


async def run_load(target: Target, traffic: Traffic, load: Load, slo: Slo) -> dict[str, Any]:
    """Warm up, measure, and return the report: what `summarise` gives, and about the load, the client and the engine.

    Raises:
        UserError: the server cannot be reached, refuses the first question, or no request succeeds.
    """
    await target.open()
    length, calibrated = await _word_length(target)
    numbers = itertools.count()
    warm = [next(numbers) for _ in range(load.warmup)]
    await _closed(target, traffic, length, warm, load.clients or min(8, load.warmup or 1))

    health = ClientHealth()
    before = await read_metrics(target.client)
    measured = [next(numbers) for _ in range(load.conversations)]
    begin = time.perf_counter()
    health.start()
    if load.clients is not None:
        requests = await _closed(target, traffic, length, measured, load.clients)
    else:
        requests = await _open(target, traffic, length, measured, load)
    client = health.stop()
    after = await read_metrics(target.client)

    if all(one.error for one in requests):
        raise UserError(f"no request succeeded: {requests[0].error}: {requests[0].detail}", where=target.url)
    figures = summarise(requests, begin, slo)
    return {
        "url": target.url,
        "model": target.model,
        "api": target.api,
        "traffic": asdict(traffic) | {"lengths_from": "server" if calibrated else "guess"},
        "load": asdict(load),
        **figures,
        "client": client,
        "fulmen": engine_report(before, after, figures["duration_s"]),
    }


async def _word_length(target: Target) -> tuple[WordLength, bool]:
    """Ask two short questions and learn from the server's counts how long words are; a guess if it counts nothing."""
    counts = []
    for words in _PROBE_WORDS:
        text = random_words(random.Random(words), words)
        asked = await target.ask([{"role": "user", "content": text}], 1, Timed(time.perf_counter()))
        if asked.error not in ("", "no_text"):
            raise UserError(f"a first question fails: {asked.error}: {asked.detail}", where=target.url)
        counts.append(asked.prompt_tokens)
    low, high = counts
    if low is None or high is None or high <= low:
        return WordLength(), False
    per_word = (high - low) / (_PROBE_WORDS[1] - _PROBE_WORDS[0])
    return WordLength(max(0.0, low - per_word * _PROBE_WORDS[0]), per_word), True


async def _converse(target: Target, said: list[str], output_tokens: int, due: float) -> list[Timed]:
    """One conversation, each turn as soon as the one before is answered; a failed turn ends it."""
    messages: list[dict[str, str]] = []
    requests = []
    for turn, text in enumerate(said):
        messages.append({"role": "user", "content": text})
        one = await target.ask(messages, output_tokens, Timed(due if turn == 0 else time.perf_counter(), turn))
        requests.append(one)
        if one.error:
            break
        messages.append({"role": "assistant", "content": one.text})
    return requests


async def _closed(
    target: Target, traffic: Traffic, length: WordLength, numbers: list[int], clients: int
) -> list[Timed]:
    waiting = iter(numbers)
    requests: list[Timed] = []

    async def client() -> None:
        for number in waiting:
            said = user_messages(traffic, length, number)
            requests.extend(await _converse(target, said, traffic.output_tokens, time.perf_counter()))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(clients, len(numbers))):
            group.create_task(client())
    return requests


async def _open(target: Target, traffic: Traffic, length: WordLength, numbers: list[int], load: Load) -> list[Timed]:
    assert load.rate is not None
    source = random.Random(f"{load.seed} arrivals")
    said = [user_messages(traffic, length, number) for number in numbers]  # made before: it takes the client's time
    due = time.perf_counter()
    tasks = []
    async with asyncio.TaskGroup() as group:
        for texts in said:
            due += source.expovariate(load.rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(group.create_task(_converse(target, texts, traffic.output_tokens, due)))
    return [one for task in tasks for one in task.result()]
