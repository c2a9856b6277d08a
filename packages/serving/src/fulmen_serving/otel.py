"""OpenTelemetry traces: a span for each request, and within it judge, queue, prefill, decode and guard.

Phases are told when they are over, so their spans are made with the times they had. No span holds text of a prompt, an
answer, a key or a path. Needs the extra ``[otel]``; nothing else imports this.

Sources: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (attributes ``gen_ai.*``),
https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from starlette.datastructures import Headers

from fulmen_core.guard import OutputChunk, OutputStream

if TYPE_CHECKING:
    from fulmen_serving.answer_options import AnswerOptions
    from fulmen_serving.engine.engine import AnswerEnd
    from fulmen_serving.served_model import ServedModel

_FLUSH_SECONDS = 1.0
_NANO = 1e9


class OtelTracer:
    """Makes spans and hands them to an exporter, in batches on a thread of its own.

    Args:
        exporter: where spans go.
        version: of the server.
        ratio: the share of requests without a traced parent that is traced, 0 to 1. A parent's choice is followed.
    """

    def __init__(self, exporter: SpanExporter, *, version: str = "", ratio: float = 1.0) -> None:
        named = Resource({"service.name": "fulmen", "service.version": version})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=named.merge(OTELResourceDetector().detect()),  # OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_FLUSH_SECONDS * 1000))
        self._tracer = self._provider.get_tracer("fulmen_serving", version)
        self._parent = TraceContextTextMapPropagator()

    def begin(self, method: str, headers: Headers) -> OtelTrace:
        """See `fulmen_serving.request_trace.Tracer`."""
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        span = self._tracer.start_span(
            method, self._parent.extract(carrier), SpanKind.SERVER, {"http.request.method": method}
        )
        return OtelTrace(self, span, method)

    def phase(
        self, parent: Span, name: str, begun: int, ended: int, attributes: Mapping[str, AttributeValue] | None = None
    ) -> None:
        """Record a child span that is over. Times in nanoseconds since 1970."""
        span = self._tracer.start_span(name, set_span_in_context(parent), start_time=begun, attributes=attributes)
        span.end(max(begun, ended))

    def close(self) -> None:
        """Send what was not sent. Idempotent."""
        self._provider.shutdown()


class OtelTrace:
    """One request; see `fulmen_serving.request_trace.RequestTrace`."""

    def __init__(self, tracer: OtelTracer, span: Span, method: str) -> None:
        self._tracer, self._span, self._name = tracer, span, method
        self._offset = time.time_ns() - int(time.perf_counter() * _NANO)
        self._guards: dict[int, TimedOutput] = {}

    def judged(self, begun: float, ended: float, action: str, category: str) -> None:
        """Record RAISE-3."""
        self._phase("judge", begun, ended, {"fulmen.guard.action": action, "fulmen.guard.category": category})

    def watch(self, choice: int, stream: OutputStream) -> OutputStream:
        """Time RAISE-4."""
        self._guards[choice] = timed = TimedOutput(stream)
        return timed

    def answered(
        self,
        request_id: str,
        model: ServedModel,
        options: AnswerOptions,
        prompt_tokens: int,
        submitted: float | None,
        ends: Mapping[int, AnswerEnd],
    ) -> None:
        """Record what was asked for and what came of it, and the phases of each choice."""
        if not self._span.is_recording():
            return
        operation = "text_completion" if request_id.startswith("cmpl-") else "chat"
        attributes: dict[str, AttributeValue | None] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "fulmen",
            "gen_ai.request.model": model.name,
            "gen_ai.response.model": model.name,
            "gen_ai.response.id": request_id,
            "gen_ai.request.max_tokens": options.max_tokens,
            "gen_ai.request.temperature": options.temperature,
            "gen_ai.request.top_p": options.top_p,
            "gen_ai.request.seed": options.seed,
            "gen_ai.request.presence_penalty": options.presence_penalty or None,
            "gen_ai.request.frequency_penalty": options.frequency_penalty or None,
            "gen_ai.request.choice.count": None if options.choices == 1 else options.choices,
            "gen_ai.usage.input_tokens": prompt_tokens,
            "gen_ai.usage.output_tokens": sum(end.completion_tokens for end in ends.values()),
            # an aborted or failed choice has no reason of its own
            "gen_ai.response.finish_reasons": [
                ends[choice].reason if choice in ends else "error" for choice in range(options.choices)
            ],
            "fulmen.backend": model.backend,
        }
        self._name = f"{operation} {model.name}"
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})
        if submitted is None:
            return
        for choice, end in sorted(ends.items()):
            index: dict[str, AttributeValue] = {"fulmen.choice.index": choice}
            admitted, first = submitted + end.queue_seconds, submitted + end.first_token_seconds
            self._phase("queue", submitted, admitted, index)
            self._phase("prefill", admitted, first, index | {"gen_ai.usage.input_tokens": prompt_tokens})
            tokens: dict[str, AttributeValue] = {"gen_ai.usage.output_tokens": end.completion_tokens}
            self._phase("decode", first, submitted + end.seconds, index | tokens)
            if (guard := self._guards.get(choice)) is not None and guard.calls:
                self._phase("guard", guard.begun, guard.ended, index | guard.attributes(end.category))

    def finish(self, route: str, status: int | None) -> None:
        """End the span."""
        if route:
            self._span.set_attribute("http.route", route)
            self._name = f"{self._name} {route}" if " " not in self._name else self._name
        self._span.update_name(self._name)
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
            if status >= 500:  # what the client does wrong is no error of the server's
                self._span.set_attribute("error.type", str(status))
                self._span.set_status(Status(StatusCode.ERROR))
        else:
            self._span.set_attribute("error.type", "client_disconnected")
        self._span.end()

    def _phase(self, name: str, begun: float, ended: float, attributes: Mapping[str, AttributeValue]) -> None:
        if self._span.is_recording():
            self._tracer.phase(self._span, name, self._moment(begun), self._moment(ended), attributes)

    def _moment(self, seconds: float) -> int:
        return self._offset + int(seconds * _NANO)


class TimedOutput:
    """A guard's output stream whose own work is timed, while it waits most of the time for the model.

    Attributes:
        begun, ended: of its first and last piece of work, seconds of `time.perf_counter`.
        seconds: its work.
        calls: pieces of it.
    """

    def __init__(self, stream: OutputStream) -> None:
        self._stream = stream
        self.begun = self.ended = self.seconds = 0.0
        self.calls = 0

    def feed(self, text: str) -> OutputChunk:
        """As the stream's."""
        begun = time.perf_counter()
        try:
            return self._stream.feed(text)
        finally:
            self._worked(begun)

    def finish(self) -> OutputChunk:
        """As the stream's."""
        begun = time.perf_counter()
        try:
            return self._stream.finish()
        finally:
            self._worked(begun)

    def attributes(self, category: str) -> dict[str, AttributeValue]:
        """What its span says beside its times."""
        return {
            "fulmen.guard.seconds": self.seconds,
            "fulmen.guard.calls": self.calls,
            "fulmen.guard.category": category,
        }

    def _worked(self, begun: float) -> None:
        self.ended = time.perf_counter()
        self.begun = self.begun or begun
        self.seconds += self.ended - begun
        self.calls += 1
