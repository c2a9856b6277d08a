"""Every failure as OpenAI's error object, ``{"error": {"message", "type", "param", "code"}}``, or as Anthropic's.

Source: https://platform.openai.com/docs/guides/error-codes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from fulmen_serving.api.anthropic_error import anthropic_error_object, speaks_anthropic
from fulmen_serving.metrics import ServingMetrics
from fulmen_serving.refusal import Refusal

logger = logging.getLogger(__name__)

#: nginx's status for a client that left; nobody receives it.
CLIENT_CLOSED_REQUEST = 499

Handler = Callable[[Request, Exception], Awaitable[Response]]


def error_object(refusal: Refusal) -> dict[str, Any]:
    """Return the body of an error response."""
    return {
        "error": {
            "message": str(refusal),
            "type": refusal.error_type,
            "param": refusal.param,
            "code": refusal.code,
        }
    }


def error_event(refusal: Refusal, scope: Scope) -> bytes:
    """Return the server-sent event that ends a stream which has begun, as the client of `scope` understands it."""
    anthropic = speaks_anthropic(scope)
    body = anthropic_error_object(refusal) if anthropic else error_object(refusal)
    return (b"event: error\n" if anthropic else b"") + b"data: " + json.dumps(body).encode() + b"\n\n"


def refusal_response(
    refusal: Refusal, headers: Mapping[str, str] | None = None, scope: Scope | None = None
) -> JSONResponse:
    """Return the response of a refusal, with `headers` and those that its status asks for.

    Args:
        refusal: what to say.
        headers: to add.
        scope: of the request, for the shape that its client understands; None: OpenAI's.
    """
    told = dict(headers or {})
    if refusal.retry_after is not None:
        told["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        told["WWW-Authenticate"] = "Bearer"
    anthropic = scope is not None and speaks_anthropic(scope)
    body = anthropic_error_object(refusal) if anthropic else error_object(refusal)
    return JSONResponse(body, refusal.status, told)


def install_error_handlers(app: FastAPI, metrics: ServingMetrics) -> None:
    """Answer every refusal, unknown path, wrong method and defect of `app` with an error object, and count it."""

    async def refused(request: Request, error: Exception) -> Response:
        refusal = _as_refusal(request, error)
        metrics.refusals.labels(str(refusal.status)).inc()
        headers = dict(getattr(error, "headers", None) or {})
        return refusal_response(refusal, headers, request.scope)

    async def client_left(_request: Request, _error: Exception) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Exception, refused)
    app.add_exception_handler(ClientDisconnect, client_left)


def _as_refusal(request: Request, error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    where = f"{request.method} {request.url.path}"
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return Refusal(
                404, f"Unknown request URL: {where}; see /openapi.json for what there is", code="unknown_url"
            )
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            return Refusal(405, f"Not allowed: {where}; use {allowed}", code="method_not_allowed")
        return Refusal(error.status_code, str(error.detail), code="http_error")
    return Refusal(500, f"The server had an error while it processed {where}", code="internal_error")
