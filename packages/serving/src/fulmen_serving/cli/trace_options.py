"""The options of `fulmen serve` that send traces to an OpenTelemetry collector."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fulmen_core.errors import UserError

if TYPE_CHECKING:
    from fulmen_serving.request_trace import Tracer

_EXPORT_SECONDS = 5.0


def add_trace_options(parser: ArgumentParser) -> None:
    """Add them."""
    parser.add_argument(
        "--otlp-endpoint",
        metavar="URL",
        help="send OpenTelemetry traces to this collector over HTTP, e.g. http://127.0.0.1:4318; default: none",
    )
    parser.add_argument(
        "--trace-ratio", type=float, metavar="SHARE", default=1.0, help="of the requests to trace, 0 to 1 (%(default)s)"
    )


def open_tracer(args: Namespace, version: str) -> Tracer | None:
    """Return the tracer that the arguments ask for; None, and nothing imported, if they ask for none.

    Raises:
        UserError: an argument does not fit, or OpenTelemetry is not installed.
    """
    if args.otlp_endpoint is None:
        return None
    try:
        url = urlsplit(args.otlp_endpoint)
        fits = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        fits = False
    if not fits or url.query or url.fragment or url.username is not None:
        # not echoed: what does not fit may hold a token
        raise UserError(
            "the collector's URL does not fit",
            where="--otlp-endpoint",
            remedy="write e.g. http://127.0.0.1:4318; credentials go into OTEL_EXPORTER_OTLP_HEADERS",
        )
    if not 0 <= args.trace_ratio <= 1:
        raise UserError(f"--trace-ratio {args.trace_ratio} is no share", remedy="give a number from 0 to 1")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from fulmen_serving.otel import OtelTracer
    except ImportError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise UserError(
            "traces need OpenTelemetry, which is not installed", remedy="pip install 'fulmen-serving[otel]'"
        ) from None
    path = args.otlp_endpoint.rstrip("/")
    exporter = OTLPSpanExporter(path if path.endswith("/v1/traces") else f"{path}/v1/traces", timeout=_EXPORT_SECONDS)
    return OtelTracer(exporter, version=version, ratio=args.trace_ratio)
