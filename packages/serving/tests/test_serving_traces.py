"""Claims about traces: what took how long, whose child it is, where it is sent; and that no text is in it."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import itertools
import signal
import threading

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from fulmen_core.cli import main
from fulmen_serving.api.edge import Edge
from fulmen_serving.otel import OtelTracer

PATH = "/v1/chat/completions"
PHASES = ["judge", "queue", "prefill", "decode", "guard"]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SAID = "the quick brown fox"


@contextlib.contextmanager
def traced(kit, guard=None, ratio=1.0, **runner):
    """A server, and a function that waits for the spans of so many requests: lists, each with its parent first."""
    exporter = InMemorySpanExporter()
    tracer = OtelTracer(exporter, version="1.2", ratio=ratio)

    def requests(count):
        def roots():
            tracer._provider.force_flush()
            return [span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]

        kit.wait_until(lambda: len(roots()) >= count, "the spans end, a moment after the answers")
        spans = exporter.get_finished_spans()
        of = {root.context.span_id: [root] for root in roots()}
        for span in spans:
            if span.kind is not SpanKind.SERVER:
                of[span.parent.span_id].append(span)
        return list(of.values())

    with kit.service(kit.runner(**runner), guard) as service, kit.server(service, edge=Edge(tracer=tracer)) as url:
        yield url, requests
    tracer.close()


def ask(url, text=SAID, headers=None, **fields):
    body = {"model": "parrot", "messages": [{"role": "user", "content": text}]} | fields
    return httpx.post(url + PATH, json=body, headers=headers, timeout=20)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_has_a_span_and_its_phases_follow_one_another(kit, stream):
    with traced(kit, kit.WordGuard(), seconds=0.01) as (url, requests):
        answer = ask(url, temperature=0, max_tokens=30, seed=7, stream=stream, stop=["lazy"])
        assert answer.status_code == 200
        [[root, *phases]] = requests(1)
    assert (root.name, root.kind, root.parent) == ("chat parrot", SpanKind.SERVER, None)
    assert dict(root.resource.attributes) == {"service.name": "fulmen", "service.version": "1.2"}
    said = dict(root.attributes)
    tokens = said.pop("gen_ai.usage.output_tokens"), said.pop("gen_ai.usage.input_tokens")
    assert min(tokens) > 1
    if not stream:
        usage = answer.json()["usage"]
        assert tokens == (usage["completion_tokens"], usage["prompt_tokens"])
    assert said.pop("gen_ai.response.id").startswith("chatcmpl-")
    assert said == {
        "http.request.method": "POST",
        "http.route": PATH,
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fulmen",
        "gen_ai.request.model": "parrot",
        "gen_ai.response.model": "parrot",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 30,
        "gen_ai.request.seed": 7,
        "gen_ai.response.finish_reasons": ("stop",),
        "fulmen.backend": "test",
    }
    assert [span.name for span in phases] == PHASES
    judge, queue, prefill, decode, guard = phases
    for before, after in itertools.pairwise([judge, queue, prefill, decode]):
        assert root.start_time <= before.start_time <= before.end_time <= after.start_time
    assert queue.end_time == prefill.start_time
    assert prefill.end_time == decode.start_time
    assert max(span.end_time for span in phases) <= root.end_time
    assert prefill.end_time - prefill.start_time >= 0.01e9  # a step
    assert decode.end_time - decode.start_time >= (tokens[0] - 1) * 0.01e9
    assert guard.attributes["fulmen.guard.calls"] > 1
    assert 0 < guard.attributes["fulmen.guard.seconds"] < (guard.end_time - guard.start_time) / 1e9


def test_a_client_s_traceparent_is_the_parent_and_its_choice_is_followed(kit):
    with traced(kit, ratio=0.0) as (url, requests):
        ask(url)
        assert requests(0) == []
        ask(url, headers={"traceparent": PARENT, "tracestate": "vendor=1"})
        ask(url, headers={"traceparent": PARENT[:-1] + "0"})
        ask(url, headers={"traceparent": "nonsense"})
        [[root, *phases]] = requests(1)
    assert f"{root.context.trace_id:032x}-{root.parent.span_id:016x}" == PARENT[3:-3]
    assert root.context.trace_state.to_header() == "vendor=1"
    assert {span.context.trace_id for span in phases} == {root.context.trace_id}


def test_each_choice_has_phases_of_its_own(kit):
    with traced(kit, slots=1) as (url, requests):
        assert ask(url, n=1).status_code == 200
    with traced(kit, slots=4) as (url, requests):
        ask(url, n=3)
        [[root, *phases]] = requests(1)
    assert root.attributes["gen_ai.request.choice.count"] == 3
    assert [(span.name, span.attributes["fulmen.choice.index"]) for span in phases] == [
        (name, index) for index in range(3) for name in ("queue", "prefill", "decode")
    ]


def test_what_the_guard_blocked_has_no_other_phase(kit):
    with traced(kit, kit.WordGuard()) as (url, requests):
        ask(url, "a bomb")
        [[root, judge]] = requests(1)
    assert root.attributes["gen_ai.response.finish_reasons"] == ("content_filter",)
    assert dict(judge.attributes) == {"fulmen.guard.action": "block", "fulmen.guard.category": "weapons"}


def test_refusals_and_faults_are_told_apart_and_health_is_not_traced(kit):
    with traced(kit, kit.WordGuard(fails="input")) as (url, requests):
        httpx.get(url + "/healthz")
        httpx.get(url + "/v1/secret-words")
        ask(url, tempature=1)
        ask(url)
        unknown, wrong, failed = (spans[0] for spans in requests(3))
    assert (unknown.name, dict(unknown.attributes)) == (
        "GET",
        {"http.request.method": "GET", "http.response.status_code": 404},
    )
    assert (wrong.name, wrong.status.status_code) == (f"POST {PATH}", StatusCode.UNSET)
    assert (failed.attributes["error.type"], failed.status.status_code) == ("500", StatusCode.ERROR)


def test_a_client_that_leaves_ends_its_span(kit):
    with traced(kit, parrot=False, seconds=0.01, context=4000) as (url, requests):
        body = {"model": "parrot", "messages": [{"role": "user", "content": SAID}], "stream": True}
        with httpx.stream("POST", url + PATH, json=body) as response:
            next(response.iter_lines())
        [[root, *_]] = requests(1)
    assert root.attributes["gen_ai.response.finish_reasons"] in [("error",), ("stop",)]


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes OTLP over HTTP, as the specification says, and keeps it."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.paths.append(self.path)
        self.server.raw.append(body)
        self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.paths, server.raw, server.received = [], [], []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def process(kit, nano_directory, *options, python=()):
    started = ("--threads", "1", "serve", "--model", str(nano_directory), "--port", "0", "--no-guard", *options)
    return kit.process(*started, python=python)


def test_a_real_server_sends_a_real_collector_the_spans_without_any_text(kit, nano_directory, collector):
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    with process(kit, nano_directory, "--otlp-endpoint", endpoint) as (served, url, _):
        ask(url, headers={"traceparent": PARENT}, model="nano", max_tokens=3, stop=["secretstop"], user="secretuser")
        httpx.get(url + "/v1/secretpath", headers={"Authorization": "Bearer fm-secretkey"})
        served.send_signal(signal.SIGTERM)  # at once: what is not sent yet is sent before the end
        assert served.wait(20) == 0
    assert set(collector.paths) == {"/v1/traces"}
    scopes = [
        scope for sent in collector.received for resource in sent.resource_spans for scope in resource.scope_spans
    ]
    spans = {span.name: span for scope in scopes for span in scope.spans}
    assert spans.keys() == {"chat nano", "GET", "queue", "prefill", "decode"}
    assert spans["chat nano"].trace_id.hex() == PARENT[3:35]
    assert {spans[name].parent_span_id for name in ("queue", "prefill", "decode")} == {spans["chat nano"].span_id}
    everything = b"".join(collector.raw)
    assert b"nano" in everything
    for text in (SAID, "secret", "fox"):
        assert text.encode() not in everything


def test_a_collector_that_is_gone_costs_no_answer(kit, nano_directory):
    with process(kit, nano_directory, "--otlp-endpoint", "http://127.0.0.1:9") as (served, url, _):
        assert ask(url, model="nano", max_tokens=3).status_code == 200
        served.send_signal(signal.SIGTERM)
        assert served.wait(20) == 0


def test_without_the_option_nothing_of_it_is_imported(kit, nano_directory):
    with process(kit, nano_directory, python=("-X", "importtime")) as (_, url, lines):
        assert httpx.get(url + "/readyz").status_code == 200
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "fulmen_serving.service" in imported
    heavy = (
        "opentelemetry.sdk",
        "opentelemetry.exporter",
        "opentelemetry.proto",
        "google.protobuf",
        "fulmen_serving.otel",
    )
    assert not [name for name in imported if name.startswith(heavy)]  # FastAPI itself imports the interface


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--otlp-endpoint", "127.0.0.1:4318"], "write e.g. http://127.0.0.1:4318"),
        (["--otlp-endpoint", "http://user:hunter2@127.0.0.1:4318"], "credentials go into OTEL_EXPORTER_OTLP_HEADERS"),
        (["--otlp-endpoint", "http://127.0.0.1:99999"], "does not fit"),
        (["--otlp-endpoint", "http://127.0.0.1:4318", "--trace-ratio", "2"], "--trace-ratio 2.0 is no share"),
    ],
)
def test_an_argument_that_does_not_fit_is_one_sentence(options, words, nano_directory, capsys):
    assert main(["serve", "--model", str(nano_directory), "--no-guard", "--port", "0", *options]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert words in said
    assert "hunter2" not in said
