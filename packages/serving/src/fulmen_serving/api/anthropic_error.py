"""Every failure as Anthropic's error object: ``{"type": "error", "error": {"type", "message"}, "request_id"}``.

Source: https://docs.claude.com/en/api/errors.
"""

from __future__ import annotations

from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from fulmen_serving.refusal import Refusal

MESSAGES_PATH = "/v1/messages"
MODELS_PATH = "/v1/models"

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def speaks_anthropic(scope: Scope) -> bool:
    """Whether a request is one of Anthropic's: by its path, or by their header where OpenAI has the same path."""
    path = scope["path"]
    if _under(MODELS_PATH, path):
        return "anthropic-version" in Headers(scope=scope)
    return _under(MESSAGES_PATH, path)


def anthropic_error_object(refusal: Refusal) -> dict[str, Any]:
    """Return the body of an error response. A field at fault is named in the message, for the object has no place."""
    kind = _TYPES.get(refusal.status, "api_error" if refusal.status >= 500 else "invalid_request_error")
    message = str(refusal)
    if refusal.param and refusal.param not in message:
        message = f"{refusal.param}: {message}"
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}


def _under(prefix: str, path: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")
