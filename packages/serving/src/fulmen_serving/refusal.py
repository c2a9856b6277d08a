"""A request that is refused: a sentence for whoever sent it, and the HTTP status and OpenAI code that carry it."""

from __future__ import annotations

from fulmen_core.errors import UserError

_TYPES = {429: "rate_limit_error"}


class Refusal(UserError):
    """The request cannot be served as it is, or not now.

    Args:
        status: HTTP status, 400 to 599.
        message: one sentence.
        code: OpenAI's machine-readable code, e.g. ``"context_length_exceeded"``.
        param: the field at fault, e.g. ``"messages[0].content"``.
        retry_after: seconds until it is worth trying again.
    """

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after

    @property
    def error_type(self) -> str:
        """OpenAI's error type for the status; an exhausted quota has one of its own, for waiting does not help."""
        if self.code == "insufficient_quota":
            return self.code
        return _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
