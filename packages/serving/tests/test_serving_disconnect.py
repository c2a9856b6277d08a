"""Claims about clients that leave and servers that stop: nothing goes on for nobody, nothing admitted is cut off."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

PATH = "/v1/chat/completions"


def connect(url, text, **fields):
    """Send a request over a raw socket, to be dropped at will."""
    body = json.dumps({"model": "parrot", "messages": [{"role": "user", "content": text}]} | fields).encode()
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["prefill", "decode", "queue"])
def test_a_client_that_leaves_frees_its_slot(kit, stream, phase):
    runner = kit.runner(slots=1, parrot=False, seconds=0.01, budget=8, context=4000)
    with kit.service(runner) as service, kit.server(service) as url:
        service.model = type(service.model)("parrot", "test", frozenset())  # no token ends an answer
        engine = service.engine
        others = []
        if phase == "prefill":
            runner.gate.clear()
        if phase == "queue":
            others.append(connect(url, "busy", stream=True))
            kit.wait_until(lambda: runner.steps > 2, "the slot is taken")
        leaving = connect(url, "a long prompt of many words " * 2, stream=stream)
        kit.wait_until(lambda: engine.admission.live == len(others) + 1, "the request is admitted")
        if phase == "decode":
            kit.wait_until(lambda: len(engine.core.running) == 1 and engine.core.running[0].generated > 2, "it decodes")
        leaving.close()
        if phase == "prefill":
            time.sleep(0.05)
            runner.gate.set()
        for other in others:
            kit.wait_until(lambda: engine.admission.queued_requests == 0, "the queue is empty")
            assert engine.admission.live == 1
            other.close()
        kit.wait_until(lambda: engine.admission.live == 0, "the slot is free")
        kit.wait_until(lambda: not engine.core.has_work, "nothing runs")
        steps = runner.steps
        time.sleep(0.05)
        assert runner.steps == steps
        assert 'fulmen_requests_total{end="abort"}' in service.metrics.render().decode()


def test_a_hundred_clients_that_leave_at_any_moment_leave_nothing_behind(kit):
    runner = kit.runner(slots=3, seconds=0.001)
    with kit.service(runner, waiting=200) as service, kit.server(service) as url:
        for number in range(100):
            connection = connect(url, f"message number {number} " * 2, stream=number % 2 == 0)
            if number % 3 == 0:
                connection.settimeout(0.02)
                with contextlib.suppress(TimeoutError):
                    connection.recv(200)
            connection.close()
        kit.wait_until(lambda: service.engine.admission.live == 0, "all slots are free", 20)
        assert service.engine.core.runner.slots == {}
        answer = httpx.post(
            url + PATH, json={"model": "parrot", "messages": [{"role": "user", "content": "still here"}]}
        )
        assert answer.json()["choices"][0]["message"]["content"] == "still here"


def test_a_client_that_leaves_in_the_middle_of_its_body_disturbs_nobody(kit, caplog):
    with kit.service() as service, kit.server(service) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
        kit.wait_until(lambda: httpx.get(url + "/healthz").status_code == 200, "it answers")
    assert "Traceback" not in caplog.text


def test_draining_finishes_what_runs_and_refuses_what_comes(kit):
    runner = kit.runner(slots=1, seconds=0.02)
    with kit.service(runner) as service, kit.server(service) as url:
        said = []

        def read():
            asked = {"model": "parrot", "messages": [{"role": "user", "content": "finish this"}], "stream": True}
            with httpx.stream("POST", url + PATH, json=asked) as response:
                said.extend(response.iter_lines())

        reader = threading.Thread(target=read)
        reader.start()
        kit.wait_until(lambda: len(service.engine.core.running) == 1, "it runs")
        service.engine.begin_drain()
        assert httpx.get(url + "/readyz").status_code == 503
        assert httpx.get(url + "/healthz").status_code == 200
        late = httpx.post(url + PATH, json={"model": "parrot", "messages": [{"role": "user", "content": "late"}]})
        assert (late.status_code, late.json()["error"]["code"]) == (503, "service_unavailable")
        assert "retry-after" in late.headers
        reader.join(10)
        text = "".join(
            json.loads(line[6:])["choices"][0]["delta"].get("content", "")
            for line in said
            if line.startswith("data: {")
        )
        assert text == "finish this"
        assert "data: [DONE]" in said
