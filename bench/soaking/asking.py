"""Asking one question, whole or as a stream, and the answer in a form that can be compared."""

from __future__ import annotations

import json
from typing import Any

import httpx

from soaking.questions import Question


class WrongAnswer(Exception):
    """What came is no answer; one sentence."""


async def ask(client: httpx.AsyncClient, question: Question) -> Any:
    """Ask for the whole answer.

    Returns: texts with their ends and the counted tokens, or the vectors, as plain JSON types.

    Raises:
        WrongAnswer: the status is not 200.
        httpx.HTTPError: the connection broke.
    """
    response = await client.post(question.path, json=question.body)
    if response.status_code != 200:
        raise WrongAnswer(f"{question.path} answers {response.status_code}: {response.text[:300]}")
    answered = response.json()
    if not question.streams:
        return [one["embedding"] for one in answered["data"]]
    chosen = sorted(answered["choices"], key=lambda choice: choice["index"])
    texts = [choice["message"]["content"] if "message" in choice else choice["text"] for choice in chosen]
    ends = [choice["finish_reason"] for choice in chosen]
    return {"texts": [text or "" for text in texts], "ends": ends, "tokens": answered["usage"]["completion_tokens"]}


async def ask_streamed(client: httpx.AsyncClient, question: Question, leave_after: int | None = None) -> Any:
    """Ask for a stream and put it together; with `leave_after` hang up after so many events.

    Returns: as `ask`; of a stream that was left, what came of it: texts alone.

    Raises:
        WrongAnswer: the status is not 200, the stream has an error in it, or ends before the answer does.
        httpx.HTTPError: the connection broke.
    """
    body = question.body | {"stream": True, "stream_options": {"include_usage": True}}
    count = question.body.get("n", 1)
    texts, ends, tokens, events = [""] * count, [None] * count, None, 0
    async with client.stream("POST", question.path, json=body) as response:
        if response.status_code != 200:
            raise WrongAnswer(f"{question.path} answers {response.status_code}: {(await response.aread())[:300]!r}")
        async for line in response.aiter_lines():
            if not line.startswith("data:") or line == "data: [DONE]":
                continue
            event = json.loads(line[5:])
            if "error" in event:
                raise WrongAnswer(f"{question.path} streams an error: {event['error']}")
            for choice in event["choices"]:
                said = choice["delta"].get("content") if "delta" in choice else choice["text"]
                texts[choice["index"]] += said or ""
                ends[choice["index"]] = choice["finish_reason"] or ends[choice["index"]]
            tokens = event["usage"]["completion_tokens"] if event.get("usage") else tokens
            events += 1
            if leave_after is not None and events >= leave_after:
                return {"texts": texts}
    if None in ends or tokens is None:
        raise WrongAnswer(f"{question.path} ends its stream before the answer: ends {ends}, tokens {tokens}")
    return {"texts": texts, "ends": ends, "tokens": tokens}
