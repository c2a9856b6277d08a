"""The trace of a request: set by whoever watches requests, told by the service what took how long. Never any text.

A context variable, as the account is: what a route asks of the service is traced.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from starlette.datastructures import Headers

from fulmen_core.guard import OutputStream

if TYPE_CHECKING:
    from fulmen_serving.answer_options import AnswerOptions
    from fulmen_serving.engine.engine import AnswerEnd
    from fulmen_serving.served_model import ServedModel


class RequestTrace(Protocol):
    """What is told of one request. Times are seconds of `time.perf_counter`."""

    def judged(self, begun: float, ended: float, action: str, category: str) -> None:
        """The guard judged the prompt (RAISE-3)."""

    def watch(self, choice: int, stream: OutputStream) -> OutputStream:
        """Return `stream`, the guard of an answer (RAISE-4), with its work timed. From any thread."""

    def answered(
        self,
        request_id: str,
        model: ServedModel,
        options: AnswerOptions,
        prompt_tokens: int,
        submitted: float | None,
        ends: Mapping[int, AnswerEnd],
    ) -> None:
        """The request ended; `ends` lacks the choices that were aborted or failed.

        Args:
            request_id: as the client knows it.
            model: that answered.
            options: what was asked for.
            prompt_tokens: of the prompt.
            submitted: when the engine took it; None if the guard answered instead.
            ends: by choice.
        """

    def finish(self, route: str, status: int | None) -> None:
        """The response is complete, or (`status` is None) the client left before it began."""


class Tracer(Protocol):
    """Traces requests."""

    def begin(self, method: str, headers: Headers) -> RequestTrace:
        """A request arrived; its `finish` must follow. A W3C ``traceparent`` among `headers` is its parent."""

    def close(self) -> None:
        """Send what was not sent. Idempotent."""


#: The trace of the request that this task serves; None where nobody watches.
current_trace: ContextVar[RequestTrace | None] = ContextVar("current_trace", default=None)
