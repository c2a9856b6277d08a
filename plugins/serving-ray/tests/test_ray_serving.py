"""Claims about two replicas on a real Ray: one server's answers, conversations that stay, deaths that are survived.

Skipped where Ray is not installed; `nox -s ray` has it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import httpx
import openai
import pytest
from fastapi.testclient import TestClient

ray = pytest.importorskip("ray", reason="Ray is not installed: nox -s ray")

from ray import serve  # noqa: E402

from fulmen_core.registry import Registry  # noqa: E402
from fulmen_core.tokenizer import ByteLevelTokenizer  # noqa: E402
from fulmen_serving.api.app import make_app  # noqa: E402
from fulmen_serving.engine.admission import AdmissionLimits  # noqa: E402
from fulmen_serving.loading import ServingOptions, load_service  # noqa: E402
from fulmen_serving_ray.cli import run as serve_ray  # noqa: E402
from fulmen_serving_ray.deployment import application  # noqa: E402

PATH = "/v1/chat/completions"
REPLICA = "x-fulmen-replica"
TURN = "the quick brown fox jumps over the lazy dog, and the dog does not mind"


@pytest.fixture(scope="module")
def nano(tmp_path_factory) -> Path:
    import torch

    from fulmen_core.model.checkpoint import save_model
    from fulmen_core.model.presets import load_preset
    from fulmen_core.model.transformer import Transformer

    torch.set_num_threads(1)
    torch.manual_seed(time.time_ns() % 2**31)
    tokenizer = ByteLevelTokenizer.train(["The quick brown fox jumps over the lazy dog. " * 8], 512)
    directory = tmp_path_factory.mktemp("models") / "nano"
    directory.mkdir()
    save_model(Transformer(load_preset("nano").model_copy(update={"vocab_size": tokenizer.vocab_size})), directory)
    tokenizer.save(directory)
    return directory


@pytest.fixture(scope="module")
def options(nano) -> ServingOptions:
    return ServingOptions(
        nano, backend="cpu", guarded=False, max_sequences=4, threads=1, admission=AdmissionLimits(16, 4096)
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def replicas(options):
    """The URL of an ingress in front of two replicas."""
    arguments = argparse.Namespace(
        platform=None,
        prices=None,
        cors_origin=[],
        max_body_bytes=100_000,
        request_seconds=None,
        otlp_endpoint=None,
        trace_ratio=1.0,
        drain_seconds=5,
    )
    port = free_port()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(application(options, arguments, replicas=2, cpus=1, imbalance=2), name="fulmen", route_prefix="/")
        yield f"http://127.0.0.1:{port}"
        serve.shutdown()
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def single(options):
    """One ordinary server with the same model."""
    service = load_service(options, Registry.discover())
    with TestClient(make_app(service, version=version("fulmen-serving"), max_body_bytes=100_000)) as client:
        yield client
    service.close()


def chat(*turns: str, **fields: object) -> dict[str, object]:
    messages = [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]
    return {"model": "nano", "messages": messages, "temperature": 0, "max_tokens": 12} | fields


def same(body: dict[str, object]) -> dict[str, object]:
    """What of an answer does not depend on when it was given."""
    return {name: value for name, value in body.items() if name not in ("id", "created")}


def test_answers_refusals_and_documents_are_those_of_a_single_server(replicas, single):
    with httpx.Client(base_url=replicas, timeout=60) as client:
        for asked in [
            chat(TURN),
            chat("hi", n=2, seed=5, temperature=1),
            chat(TURN, tempature=1),
            chat(TURN, model="x"),
        ]:
            here, there = client.post(PATH, json=asked), single.post(PATH, json=asked)
            assert here.status_code == there.status_code
            assert same(here.json()) == same(there.json())
        for method, path, content in [
            ("GET", "/v1/models/nano", None),
            ("GET", "/openapi.json", None),
            ("GET", "/readyz", None),
            ("GET", "/v1/none", None),
            ("POST", PATH, b"{"),
            ("POST", PATH, b"x" * 100_001),
            ("POST", "/tokenize", json.dumps({"model": "nano", "prompt": TURN}).encode()),
        ]:
            here, there = (server.request(method, path, content=content) for server in (client, single))
            assert (here.status_code, same(here.json())) == (there.status_code, same(there.json())), path


def test_a_stream_arrives_in_pieces_and_says_what_a_single_server_says(replicas, single):
    drawn = chat(TURN, max_tokens=60, temperature=1, seed=7)  # the most probable token of random weights may be silent
    asked = drawn | {"stream": True, "stream_options": {"include_usage": True}}
    arrived = []
    with httpx.stream("POST", replicas + PATH, json=asked, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: {"):
                arrived.append((time.monotonic(), json.loads(line[6:])))
    whole = single.post(PATH, json=drawn).json()
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for _, chunk in arrived if chunk["choices"])
    assert text == whole["choices"][0]["message"]["content"] != ""
    assert arrived[-1][1]["usage"] == whole["usage"]
    assert arrived[-1][0] - arrived[0][0] > 0.005, "all pieces came at once"
    with openai.OpenAI(base_url=replicas + "/v1", api_key="none", max_retries=0) as client:
        assert client.chat.completions.create(**drawn).choices[0].message.content == text


def test_each_conversation_stays_with_a_replica_and_conversations_are_spread(replicas):
    homes = {}
    with httpx.Client(base_url=replicas, timeout=60) as client:
        for turn in range(4):
            for conversation in range(6):
                said = [f"conversation {conversation}: {TURN}", *([f"turn {n}, " + TURN for n in range(2 * turn)])]
                answer = client.post(PATH, json=chat(*said, max_tokens=2))
                homes.setdefault(conversation, set()).add(answer.headers[REPLICA])
    assert {len(home) for home in homes.values()} == {1}
    assert len(set.union(*homes.values())) == 2


def test_a_busy_replica_lets_others_have_what_it_knows(replicas, nano):
    never_ends = {str(token): -100 for token in ByteLevelTokenizer.load(nano).stop_ids}
    asked = chat("everybody asks this: " + TURN, max_tokens=150, logit_bias=never_ends)
    answered = []

    def ask():
        answer = httpx.post(replicas + PATH, json=asked, timeout=120)
        answered.append((answer.status_code, answer.headers[REPLICA]))

    for _ in range(5):  # on one core a round may be answered before the next request of it has come
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len({replica for _, replica in answered}) == 2:
            break
    assert {status for status, _ in answered} == {200}
    assert len({replica for _, replica in answered}) == 2


def test_metrics_of_all_replicas_are_told_apart(replicas):
    text = httpx.get(replicas + "/metrics", timeout=30).text
    lines = [line for line in text.splitlines() if line.startswith("fulmen_model_busy_fraction{")]
    assert len(lines) == 2
    assert all('replica="' in line for line in lines)
    assert text.count("# TYPE fulmen_requests_total counter") == 1


def running(url: str) -> float:
    text = httpx.get(url + "/metrics", timeout=30).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("fulmen_running_requests{"))


def test_a_client_that_leaves_frees_its_slot(replicas):
    asked = chat(TURN, max_tokens=400, stream=True, logit_bias={"0": -100, "1": -100, "2": -100, "3": -100})
    with httpx.stream("POST", replicas + PATH, json=asked, timeout=60) as response:
        next(response.iter_lines())
    deadline = time.monotonic() + 20
    while running(replicas):
        assert time.monotonic() < deadline, "the answer goes on for nobody"
        time.sleep(0.1)


def test_a_killed_replica_is_survived_and_replaced(replicas):
    asked = chat("stay where you are: " + TURN, max_tokens=200, stream=True)
    ended = []

    def stream():
        with httpx.stream("POST", replicas + PATH, json=asked, timeout=120) as response:
            home.append(response.headers[REPLICA])
            begun.set()
            ended.extend(response.iter_lines())

    home, begun = [], threading.Event()
    reader = threading.Thread(target=stream)
    reader.start()
    assert begun.wait(60)
    ray.kill(ray.get_actor(f"SERVE_REPLICA::fulmen#FulmenReplica#{home[0]}", namespace="serve"))
    for number in range(6):  # also those that would have gone to the dead one
        answer = httpx.post(replicas + PATH, json=chat(f"{number} {TURN}"), timeout=60)
        assert answer.status_code == 200
        assert answer.headers[REPLICA] != home[0]
    again = httpx.post(replicas + PATH, json=asked | {"stream": False, "max_tokens": 2}, timeout=60)
    assert again.headers[REPLICA] != home[0]
    reader.join(60)
    last = [line for line in ended if line][-1]
    assert last == "data: [DONE]" or json.loads(last[6:])["error"]["code"] == "service_unavailable"
    deadline = time.monotonic() + 90
    while len({line for line in httpx.get(replicas + "/metrics").text.splitlines() if "busy_fraction{" in line}) < 2:
        assert time.monotonic() < deadline, "no new replica"
        time.sleep(0.5)


def test_the_command_serves_and_stops(nano, replicas):
    port = free_port()
    command = [sys.executable, "-m", "fulmen_core", "serve-ray", "--model", str(nano), "--no-guard", "--backend", "cpu"]
    options = ["--replicas", "2", "--cpus", "1", "--port", str(port), "--drain-seconds", "2"]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=os.environ) as served:
        try:
            said = next((line for line in served.stderr if line.startswith("Serving ")), "")
            assert said == f"Serving nano on http://127.0.0.1:{port} (2 replicas)\n"
            assert httpx.post(f"http://127.0.0.1:{port}{PATH}", json=chat(TURN), timeout=60).status_code == 200
            served.send_signal(signal.SIGTERM)
            assert served.wait(60) == 0
        finally:
            served.kill()


def test_arguments_that_do_not_fit_are_refused_before_ray_starts(nano, monkeypatch):
    from fulmen_core.errors import UserError

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(UserError, match="there must be a replica"):
        serve_ray(["--model", str(nano), "--no-guard", "--replicas", "0"])
