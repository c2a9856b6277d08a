"""Any OpenAI-compatible server."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx

from fulmen_core.errors import UserError
from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.engine.engine import AnswerEnd, AnswerEvent, AnswerFailure, TextDelta
from fulmen_serving.openai_server import connect, event_lines, first_model
from fulmen_serving.prompt import Message


class RemotePartner:
    """The first model of the server at `url`, which may or may not end in ``/v1``."""

    def __init__(self, url: str, options: AnswerOptions, api_key: str = "") -> None:
        # no read limit: an answer may wait for a slot
        self._client = connect(url, api_key=api_key, timeout=httpx.Timeout(10, read=None))
        self._options = options
        self._model = ""

    async def open(self) -> str:
        """Ask the server for its model."""
        self._model = await first_model(self._client)
        return self._model

    async def answer(self, messages: Sequence[Message]) -> AsyncGenerator[AnswerEvent, None]:
        """Stream one answer."""
        options = self._options
        asked = {
            "model": self._model,
            "messages": list(messages),
            "stream": True,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_tokens": options.max_tokens,
            "seed": options.seed,
        }
        body = {name: value for name, value in asked.items() if value is not None}
        tokens = 0
        try:
            async with self._client.stream("POST", "v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise UserError(_error_message(await response.aread(), response.status_code))
                async for line in event_lines(response):
                    data = line.removeprefix("data:").strip()
                    if not line.startswith("data:") or data == "[DONE]":
                        continue
                    event = json.loads(data)
                    if "error" in event:
                        yield AnswerFailure(str(event["error"].get("message", event["error"])))
                        return
                    for choice in event["choices"]:
                        if text := choice["delta"].get("content"):
                            tokens += 1
                            yield TextDelta(text)
                        if end := choice.get("finish_reason"):
                            yield AnswerEnd(end, tokens)
        except httpx.HTTPError as error:
            raise UserError(f"the connection to {self._client.base_url} broke ({error})", remedy="ask again") from None

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def _error_message(body: bytes, status: int) -> str:
    try:
        answer: Any = json.loads(body)
        return str(answer["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"the server answers {status}"
