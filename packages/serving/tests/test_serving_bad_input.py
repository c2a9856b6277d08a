"""Claims about requests that are wrong: a 4xx, an OpenAI error object that names the fault, and nothing generated."""

from __future__ import annotations

import json
import socket
import time

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

PATH = "/v1/chat/completions"
GOOD = {"model": "parrot", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def server(kit):
    with kit.service() as service, kit.server(service) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client, service


def refused(response, status):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] in ("invalid_request_error", "rate_limit_error", "server_error")
    return error


@pytest.mark.parametrize(
    ("change", "param", "code", "words"),
    [
        ({"tempature": 1}, "tempature", "unknown_parameter", "did you mean 'temperature'?"),
        ({"xyzzy": 1}, "xyzzy", "unknown_parameter", "Unrecognized request argument supplied: xyzzy"),
        ({"messages": None}, "messages", "invalid_value", "list"),
        ({"messages": []}, "messages", "invalid_value", "at least 1"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_value", "must be an object"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter", "messages[0].content"),
        (
            {"messages": [{"role": "user", "contents": "x"}]},
            "messages[0].contents",
            "unknown_parameter",
            "did you mean 'content'?",
        ),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value", "'assistant'"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "invalid_value", "string"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_value", "string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content",
            "invalid_value",
            "'image_url'; only 'text' is supported",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "txt": "a"}]}]},
            "messages[0].content",
            "invalid_value",
            "part 0 must have a string 'text'",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]},
            "messages[0].tool_calls[0].type",
            "missing_required_parameter",
            "Missing",
        ),
        ({"temperature": 3}, "temperature", "invalid_value", "less than or equal to 2"),
        ({"temperature": "1"}, "temperature", "invalid_value", "number"),
        ({"top_p": 0}, "top_p", "invalid_value", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value", "greater than or equal to 1"),
        ({"max_tokens": True}, "max_tokens", "invalid_value", "integer"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "invalid_value", "differ"),
        ({"max_tokens": 128}, "max_tokens", "context_length_exceeded", "128 tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value", "at most 4"),
        ({"stop": ""}, "stop", "invalid_value", "empty"),
        ({"stop": [1]}, "stop[0]", "invalid_value", "string"),
        ({"seed": 1.5}, "seed", "invalid_value", "integer"),
        ({"seed": 2**64}, "seed", "invalid_value", "less than"),
        ({"n": 0}, "n", "invalid_value", "greater than or equal to 1"),
        ({"n": 1000}, "n", "invalid_value", "at most 4 answers"),
        ({"stream": "yes"}, "stream", "invalid_value", "boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value", "needs 'stream'"),
        (
            {"stream": True, "stream_options": {"include_use": True}},
            "stream_options.include_use",
            "unknown_parameter",
            "did you mean 'include_usage'?",
        ),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter", "not supported"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter", "Missing"),
        ({"frequency_penalty": 3}, "frequency_penalty", "invalid_value", "less than or equal to 2"),
        ({"presence_penalty": -3}, "presence_penalty", "invalid_value", "greater than or equal to -2"),
        ({"logit_bias": {"fox": 1}}, "logit_bias", "invalid_value", "no token id"),
        ({"logit_bias": {"512": 1}}, "logit_bias", "invalid_value", "vocabulary of 512"),
        ({"logit_bias": {"5": 101}}, "logit_bias[5]", "invalid_value", "less than or equal to 100"),
        ({"model": 5}, "model", "invalid_value", "string"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_a_field_at_fault_is_named(server, change, param, code, words):
    client, service = server
    steps = service.engine.core.runner.steps
    error = refused(client.post(PATH, json=GOOD | change), 400)
    assert (error["param"], error["code"]) == (param, code)
    assert words in error["message"]
    assert service.engine.core.runner.steps == steps


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_named(server, missing):
    body = {name: value for name, value in GOOD.items() if name != missing}
    error = refused(server[0].post(PATH, json=body), 400)
    assert (error["param"], error["code"]) == (missing, "missing_required_parameter")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", "invalid_json", "not valid JSON"),
        (b"{", "invalid_json", "line 1"),
        (b"[1, 2]", "invalid_json", "not an object"),
        (b'{"model": NaN}', "invalid_json", "not valid JSON"),
        (b'{"model": "\xff"}', "invalid_utf8", "byte 0xff at 11"),
        (b'{"model": "parrot", "messages": [{"role": "user", "content": "\\ud800"}]}', "invalid_json", "hex escape"),
        (b'{"a":' * 100_000, "invalid_json", "not valid JSON"),
        (b'{"seed": 1' + b"0" * 10_000 + b"}", None, ""),
    ],
    ids=["empty", "cut off", "array", "nan", "latin-1", "surrogate", "deep", "long number"],
)
def test_a_body_that_is_no_json_object_is_refused(server, body, code, words):
    error = refused(server[0].post(PATH, content=body), 400)
    assert code is None or error["code"] == code
    assert words in error["message"]


def test_a_ten_megabyte_prompt_is_refused_quickly_whether_or_not_its_size_is_declared(server):
    client, _ = server
    body = json.dumps(GOOD | {"messages": [{"role": "user", "content": "x" * 10_000_000}]}).encode()
    for content in (body, iter([body[i : i + 65536] for i in range(0, len(body), 65536)])):
        begun = time.monotonic()
        error = refused(client.post(PATH, content=content), 413)
        assert error["code"] == "request_too_large"
        assert time.monotonic() - begun < 5
    refused(client.post(PATH, json=GOOD | {"messages": [{"role": "user", "content": "x" * 1_000_000}]}), 400)
    assert client.post(PATH, json=GOOD).status_code == 200


def test_a_client_that_asks_before_it_sends_is_refused_before_it_sends(server):
    host, port = server[0].base_url.host, server[0].base_url.port
    with socket.create_connection((host, port), timeout=10) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_an_unknown_path_and_a_wrong_method_are_error_objects(server):
    client, _ = server
    assert refused(client.get("/v1/nothing"), 404)["code"] == "unknown_url"
    assert "/v1/audio/speech" in refused(client.post("/v1/audio/speech", json={}), 404)["message"]
    response = client.get(PATH)
    assert refused(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"


def test_a_wrong_model_is_not_found(server):
    error = refused(server[0].post(PATH, json=GOOD | {"model": "gpt-9"}), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")


def test_a_defect_is_an_error_object_without_its_details(kit):
    with kit.service() as service:
        service.open = lambda messages, options: 1 / 0
        with kit.server(service) as url:
            error = refused(httpx.post(url + PATH, json=GOOD), 500)
    assert error["code"] == "internal_error"
    assert "zero" not in error["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["messages", "temperature", "top_p", "max_tokens", "stop", "seed", "n", "stream_options", "tools", "user", "x"]


@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_json_arrives_the_answer_is_a_completion_or_a_clear_refusal(server, changes):
    try:
        body = json.dumps(GOOD | changes).encode()
    except UnicodeEncodeError:
        return
    response = server[0].post(PATH, content=body)
    if response.status_code == 200:
        assert response.json()["choices"]
    else:
        refused(response, 400)


def test_health_ready_and_metrics_answer(server):
    client, _ = server
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.post(PATH, json=GOOD)
    client.post(PATH, json={})
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = {line.split(" ")[0]: float(line.split(" ")[1]) for line in response.text.splitlines() if line[0] != "#"}
    assert values['fulmen_requests_total{end="stop"}'] >= 1
    assert values['fulmen_refusals_total{status="400"}'] >= 1
    assert values["fulmen_generated_tokens_total"] > 0
    assert values["fulmen_prompt_tokens_total"] > 0
    assert values["fulmen_running_requests"] == values["fulmen_queued_requests"] == 0
    assert 0 < values["fulmen_model_busy_fraction"] <= 1
    assert values["fulmen_step_seconds_count"] > 0
    assert values["fulmen_time_to_first_token_seconds_count"] >= 1
    assert values['fulmen_time_to_first_token_seconds_bucket{le="+Inf"}'] >= 1


def test_a_dead_engine_is_unhealthy_and_refuses(kit, caplog):
    runner = kit.runner()
    with kit.service(runner) as service, kit.server(service) as url:
        sound, runner.release = runner.release, lambda slot: 1 / 0
        refused(httpx.post(url + PATH, json=GOOD), 500)
        kit.wait_until(lambda: service.engine.fault, "the fault is known")
        health = httpx.get(url + "/healthz")
        assert (health.status_code, health.json()["status"]) == (503, "failed")
        assert "ZeroDivisionError" in health.json()["reason"]
        assert httpx.get(url + "/readyz").status_code == 503
        refused(httpx.post(url + PATH, json=GOOD), 503)
        runner.release = sound
        service.engine.core.running.clear()
        service.engine.core.cache.slots.__init__(runner.limits.max_sequences)


def test_the_openapi_document_describes_the_request(server):
    document = server[0].get("/openapi.json").json()
    body = document["paths"][PATH]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"model", "messages", "stream", "stop"} <= body["properties"].keys()
    assert body["additionalProperties"] is False
