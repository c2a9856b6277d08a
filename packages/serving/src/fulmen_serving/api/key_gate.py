"""Keys at the door: who sends a request is known, and within limits, before any of its body is read.

What computes needs a key: every path under ``/v1``, and elsewhere whatever is not merely read. The admin routes have a
key of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fulmen_serving.account import current_account
from fulmen_serving.api.errors import refusal_response
from fulmen_serving.metrics import ServingMetrics
from fulmen_serving.refusal import Refusal

if TYPE_CHECKING:
    from fulmen_serving.platform.platform import Platform

ADMIN_PREFIX = "/admin/"


class KeyGate:
    """ASGI middleware that demands an API key of `platform` and charges the request to it."""

    def __init__(self, app: ASGIApp, platform: Platform, metrics: ServingMetrics) -> None:
        self._app, self._platform, self._metrics = app, platform, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request under its key, or refuse it."""
        if scope["type"] != "http" or not needs_key(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            account = await self._platform.enter(bearer(Headers(scope=scope)))
        except Refusal as refusal:
            self._metrics.refusals.labels(str(refusal.status)).inc()
            await refusal_response(refusal, scope=scope)(scope, receive, send)
            return

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(account.limiter.headers())
            await send(message)

        token = current_account.set(account)
        try:
            await self._app(scope, receive, send_with_limits)
        finally:
            current_account.reset(token)
            account.leave()


def bearer(headers: Headers) -> str:
    """Return the secret of ``Authorization: Bearer``, or of ``x-api-key``, which Anthropic's clients send.

    Raises:
        Refusal: 401, there is none.
    """
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return secret.strip()
    if secret := headers.get("x-api-key", "").strip():
        return secret
    raise Refusal(
        401,
        "There is no API key: send it in the header Authorization, as 'Bearer' and the key, or in x-api-key",
        code="missing_api_key",
    )


def needs_key(method: str, path: str) -> bool:
    """Whether a request demands an API key of whoever computes; the admin routes have a key of their own."""
    if path.startswith(ADMIN_PREFIX):
        return False
    return path == "/v1" or path.startswith("/v1/") or method not in ("GET", "HEAD", "OPTIONS")
