"""An answer and the connection that waits for it: whatever happens to the one ends the other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from fulmen_serving.answer import Answer, guard_headers
from fulmen_serving.tools.tool_loop import ToolAnswer

T = TypeVar("T")


class AnswerStreamResponse(StreamingResponse):
    """Server-sent events of one answer, closed in any case: a generator cancelled between two sends would not be."""

    def __init__(self, content: Any, answer: Answer | ToolAnswer) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"} | guard_headers(answer.degraded)
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, and close the answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, or raise `ClientDisconnect` as soon as the client is gone."""
    task = asyncio.create_task(work)
    left = asyncio.create_task(_left(request.receive))
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        left.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
