"""The load of a soak: clients that ask, hang up and blunder at random, and a hand that kills the model's process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx

from soaking.asking import WrongAnswer, ask, ask_streamed
from soaking.questions import MALFORMED, Question
from soaking.server_state import ProcessState, model_process, process_state

_HANGS_UP, _GIVES_UP, _BLUNDERS = 0.12, 0.05, 0.08  # shares of all requests
_MOST_FAULTS = 100  # more say nothing new


class Load:
    """Clients of one server, from `run` to `run`, and all that they found.

    Args:
        url: of the server.
        server: its process id.
        questions: with their answers.
        clients: how many ask at once.
        source: of all that is random here.
    """

    def __init__(
        self, url: str, server: int, questions: Sequence[Question], clients: int, source: random.Random
    ) -> None:
        self._url, self._server, self._questions, self._clients = url, server, questions, clients
        self._source = source
        self._begun = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.faults: list[str] = []
        self.looks: list[tuple[float, ProcessState, ProcessState | None]] = []
        self.tokens = 0

    def fault(self, sentence: str) -> None:
        """Note what must not be."""
        self.counts["faults"] += 1
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(f"after {time.monotonic() - self._begun:.1f} s: {sentence}")

    async def run(self, seconds: float, kill_every: float = 0.0, kill_until: float = 0.0) -> None:
        """Ask for so long; kill the model's process every `kill_every` seconds, in the first `kill_until` of them."""
        end = time.monotonic() + seconds
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=120.0, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            watching = group.create_task(self._watch(min(1.0, seconds / 100)))
            killing = group.create_task(self._kill(kill_every, time.monotonic() + kill_until))
            clients = [group.create_task(self._ask_until(client, end)) for _ in range(self._clients)]
            await asyncio.wait(clients)
            watching.cancel()
            killing.cancel()

    async def _ask_until(self, client: httpx.AsyncClient, end: float) -> None:
        while time.monotonic() < end:
            chance = self._source.random()
            question = self._source.choice(self._questions)
            try:
                if chance < _BLUNDERS:
                    await self._blunder(client)
                elif chance < _BLUNDERS + _HANGS_UP and question.streams:
                    await self._hang_up(client, question)
                elif chance < _BLUNDERS + _HANGS_UP + _GIVES_UP:
                    await self._give_up(client, question)
                else:
                    await self._compare(client, question)
            except (WrongAnswer, httpx.HTTPError) as error:
                self.fault(f"{question.kind}: {type(error).__name__}: {error}")

    async def _compare(self, client: httpx.AsyncClient, question: Question) -> None:
        streamed = question.streams and self._source.random() < 0.5
        got: Any = await (ask_streamed if streamed else ask)(client, question)
        self.counts["streamed" if streamed else "whole"] += 1
        self.kinds[question.kind] += 1
        if question.streams:
            self.tokens += got["tokens"]
        if got != question.expected:
            how = "streamed" if streamed else "whole"
            self.fault(f"{question.kind}, {how}: {_short(got)} instead of {_short(question.expected)}: {question.body}")

    async def _hang_up(self, client: httpx.AsyncClient, question: Question) -> None:
        got = await ask_streamed(client, question, leave_after=self._source.randint(1, 12))
        self.counts["hung up"] += 1
        for text, whole in zip(got["texts"], question.expected["texts"], strict=True):
            if not whole.startswith(text):
                self.fault(f"{question.kind}, hung up: {text!r} does not begin {whole!r}")

    async def _give_up(self, client: httpx.AsyncClient, question: Question) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._source.uniform(0.0, 0.1)):
                await ask(client, question)
        self.counts["gave up"] += 1

    async def _blunder(self, client: httpx.AsyncClient) -> None:
        path, body, status = self._source.choice(MALFORMED)
        if isinstance(body, str):
            response = await client.post(path, content=body, headers={"content-type": "application/json"})
        else:
            response = await client.post(path, json=body)
        self.counts["malformed"] += 1
        if response.status_code != status:
            self.fault(f"malformed {path} {str(body)[:80]} answers {response.status_code} instead of {status}")

    async def _kill(self, every: float, until: float) -> None:
        while every and time.monotonic() + every < until:
            await asyncio.sleep(every)
            if (pid := model_process(self._server)) is not None:
                os.kill(pid, signal.SIGKILL)
                self.counts["kills"] += 1

    async def _watch(self, every: float) -> None:
        while True:
            pid = model_process(self._server)
            server = process_state(self._server)
            if server is not None:
                self.looks.append((time.monotonic(), server, process_state(pid) if pid else None))
            await asyncio.sleep(every)


def _short(answer: object) -> str:
    text = repr(answer)
    return text if len(text) < 400 else f"{text[:200]} ... {text[-200:]}"
