"""One OpenAI-compatible server, asked for streamed answers; every arrival is timed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from fulmen_serving.openai_server import connect, event_lines, first_model

Api = Literal["chat", "completions"]


@dataclass(slots=True)
class Timed:
    """One request. Times are `time.perf_counter` seconds.

    Attributes:
        due: when it was to be sent; latencies count from here, so that a late client cannot flatter the server.
        turn: of its conversation, from 0.
        sent: when it was sent.
        chunks: when each piece of text arrived.
        end: when the answer was over.
        text: what was answered.
        usage_tokens, prompt_tokens: as the server counts, None if it does not say.
        error: what went wrong, by kind; empty if nothing did.
        detail: one sentence about the error.
    """

    due: float
    turn: int = 0
    sent: float = 0.0
    chunks: list[float] = field(default_factory=list)
    end: float = 0.0
    text: str = ""
    usage_tokens: int | None = None
    prompt_tokens: int | None = None
    error: str = ""
    detail: str = ""

    @property
    def output_tokens(self) -> int:
        """The server's count, else the pieces of text."""
        return len(self.chunks) if self.usage_tokens is None else self.usage_tokens


class Target:
    """A server under `url`, which may or may not end in ``/v1``. Open it, then `ask`; an async context manager.

    Args:
        url: e.g. ``"http://127.0.0.1:8000"``.
        api: chat completions or completions.
        model: the model's name; empty asks the server and takes its first.
        api_key: sent as a bearer token; empty sends none.
        timeout: seconds for one whole answer.
        extra: further fields of every body, e.g. ``{"ignore_eos": True}``.
    """

    def __init__(
        self,
        url: str,
        *,
        api: Api = "chat",
        model: str = "",
        api_key: str = "",
        timeout: float = 600.0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        patience = httpx.Timeout(timeout, connect=min(10.0, timeout))
        self.client = connect(url, api_key=api_key, timeout=patience, direct=True)  # a proxy would be measured too
        self.url = str(self.client.base_url).rstrip("/")
        self.api, self.model, self.timeout = api, model, timeout
        self._extra = dict(extra or {})

    async def __aenter__(self) -> Target:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def open(self) -> None:
        """Find the model.

        Raises:
            UserError: nobody answers, or not as an OpenAI-compatible server does.
        """
        first = await first_model(self.client)
        self.model = self.model or first

    async def ask(self, messages: Sequence[Mapping[str, str]], max_tokens: int, timed: Timed) -> Timed:
        """Stream one answer and fill in `timed`. What goes wrong is recorded, not raised."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.api == "chat":
            path, body["messages"] = "v1/chat/completions", list(messages)
        else:
            path, body["prompt"] = "v1/completions", "\n".join(message["content"] for message in messages)
        timed.sent = time.perf_counter()
        try:
            async with self.client.stream("POST", path, json=body | self._extra) as response:
                if response.status_code != 200:
                    timed.error = f"http_{response.status_code}"
                    timed.detail = _sentence(await response.aread())
                else:
                    await self._read(response, timed)
        except httpx.TimeoutException:
            timed.error, timed.detail = "timeout", f"no answer within {self.timeout:g} s"
        except httpx.ConnectError as error:
            timed.error, timed.detail = "connect", str(error)
        except httpx.HTTPError as error:
            timed.error, timed.detail = "connection_broke", str(error) or type(error).__name__
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            timed.error, timed.detail = "malformed", f"{type(error).__name__}: {error}"
        timed.end = time.perf_counter()
        return timed

    async def _read(self, response: httpx.Response, timed: Timed) -> None:
        pieces: list[str] = []
        finished = False
        deadline = timed.sent + self.timeout
        async for line in event_lines(response):
            now = time.perf_counter()
            if now > deadline:  # httpx limits the wait for each read, not for all of them
                raise httpx.ReadTimeout("the whole answer took too long")
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                finished = True
                continue
            event = json.loads(data)
            if "error" in event:
                timed.error, timed.detail = "error_in_stream", str(event["error"])
                return
            if usage := event.get("usage"):
                timed.usage_tokens, timed.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
            for choice in event.get("choices", ()):
                said = choice["delta"].get("content") if self.api == "chat" else choice.get("text")
                if said:
                    timed.chunks.append(now)
                    pieces.append(said)
                finished = finished or choice.get("finish_reason") is not None
        timed.text = "".join(pieces)
        if not finished:
            timed.error, timed.detail = "broke_off", "the stream ended before the answer did"
        elif not timed.chunks:
            timed.error, timed.detail = "no_text", "the answer has no text"


def _sentence(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace").strip()
