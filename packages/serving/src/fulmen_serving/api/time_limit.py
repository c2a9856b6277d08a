"""No request takes longer than it may: what it runs is cancelled, which frees its slots."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fulmen_serving.api.errors import error_event, refusal_response
from fulmen_serving.refusal import Refusal


class TimeLimit:
    """ASGI middleware: a request that takes longer than `seconds` gets 504, a stream an error event as its last."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request for so long."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = finished = False

        async def watched(message: Message) -> None:
            nonlocal begun, finished
            begun = True
            finished = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                await self._app(scope, receive, watched)
        except TimeoutError:
            if not limit.expired():
                raise
            refusal = Refusal(504, f"The request took longer than {self._seconds:g} s", code="request_timeout")
            if not begun:
                await refusal_response(refusal, scope=scope)(scope, receive, send)
            elif not finished:  # only a stream begins before it is complete
                event = error_event(refusal, scope)
                await send({"type": "http.response.body", "body": event, "more_body": False})
