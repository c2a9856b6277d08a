"""Traces of requests, begun before anything else looks at them."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fulmen_serving.request_trace import Tracer, current_trace

#: What orchestrators ask every few seconds.
UNTRACED = ("/healthz", "/readyz", "/metrics")


class TraceRequests:
    """ASGI middleware: one trace for each request."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app, self._tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, watched."""
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        trace = self._tracer.begin(scope["method"], Headers(scope=scope))
        token = current_trace.set(trace)
        try:
            await self._app(scope, receive, watched)
        finally:
            current_trace.reset(token)
            # the pattern of the route, never the path: a path that nobody serves may hold anything
            trace.finish(getattr(scope.get("route"), "path", ""), status)
