"""Claims about `fulmen serve` while its model process dies, as a client sees it; over a backend that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import httpx
import pytest

PLUGIN, GUARD = (Path(__file__).with_name(name) for name in ("brittle_backend.py", "brittle_guard.py"))


@pytest.fixture
def model(tmp_path, tokenizer):
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 256, "vocab_size": 512}))
    (tmp_path / "fulmen_artefact.json").write_text('{"format": "brittle"}')
    (tmp_path / "slow").touch()
    tokenizer.save(tmp_path)
    return tmp_path


@pytest.fixture
def server(kit, model):
    """A real `fulmen serve` in a process group of its own, and its URL."""
    with serving(kit, model, [], ["--no-guard"]) as served:
        yield served


@pytest.fixture
def guarded_server(kit, model):
    """The same behind a guard that can be killed, in a process of its own."""
    plugins = ["--no-plugin", "fulmen-safety", "--plugin", str(GUARD)]
    with serving(kit, model, plugins, ["--guard-process"]) as served:
        yield served


@contextlib.contextmanager
def serving(kit, model, plugins, more):
    options = ["--port", "0", "--backend", "brittle", "--name", "m", "--step-seconds", "5", *more]
    started = ("--plugin", str(PLUGIN), *plugins, "serve", "--model", str(model), *options)
    with kit.process(*started, process_group=0) as (process, url, lines):
        said = threading.Thread(target=lambda: lines.extend(process.stderr))
        said.start()
        process.said = lines
        try:
            yield process, url
        finally:
            process.kill()
            said.join(10)


def child_of(process, module="model_worker"):
    """The child that runs `module`."""
    children = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == process.pid and state != "Z" and module in (folder / "cmdline").read_text():
                children.append(int(folder.name))
    [child] = children
    return child


def stream(url, seed, after=None):
    """The text and the end of one long streamed answer; `after` is called once some of it has come."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "go"}], "stream": True, "max_tokens": 100}
    asked["logit_bias"] = {"0": -100, "2": -100}  # the ids that would end it
    text, finish, pieces = "", None, 0
    with httpx.stream("POST", f"{url}/v1/chat/completions", json={**asked, "seed": seed}, timeout=60) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                assert "choices" in line, line
                [choice] = json.loads(line[6:])["choices"]
                text += choice["delta"].get("content") or ""
                finish = choice["finish_reason"]
                pieces += 1
                if after is not None and pieces == 10:
                    after()
    return text, finish


def test_a_stream_goes_on_when_its_model_process_is_killed(server, kit):
    process, url = server
    whole = stream(url, 3)
    assert whole[1] in ("stop", "length")
    children, health = [child_of(process)], []

    def kill():
        os.kill(children[0], signal.SIGKILL)
        kit.wait_until(lambda: httpx.get(f"{url}/healthz").json()["status"] == "restarting", "it is told", 5)
        health.append(httpx.get(f"{url}/healthz"))

    assert stream(url, 3, kill) == whole
    assert health[0].status_code == 200
    assert health[0].json()["status"] in ("restarting", "ok")
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
    assert child_of(process) not in children
    assert "fulmen_model_restarts_total 1.0" in httpx.get(f"{url}/metrics").text
    assert any("the model process died: it was killed by SIGKILL; 1 requests wait" in line for line in process.said)


def test_ctrl_c_reaches_both_processes_and_what_runs_is_finished(server):
    process, url = server
    child = child_of(process)
    text, finish = stream(url, 4, lambda: os.killpg(process.pid, signal.SIGINT))
    assert finish in ("stop", "length")
    assert process.wait(20) == 0
    assert not Path(f"/proc/{child}").exists()
    assert not any("Traceback" in line for line in process.said)
    assert text


def test_a_drain_also_waits_for_answers_whose_model_process_is_killed(server):
    process, url = server
    whole = stream(url, 5)

    def both():
        child = child_of(process)
        process.terminate()
        os.kill(child, signal.SIGKILL)

    assert stream(url, 5, both) == whole
    assert process.wait(20) == 0


def test_a_server_that_is_killed_leaves_no_model_process(server, kit):
    process, _ = server
    child = child_of(process)
    assert Path(f"/proc/{child}").exists()
    process.kill()
    kit.wait_until(lambda: not Path(f"/proc/{child}").exists(), "it is gone")


def test_a_stream_goes_on_when_its_guard_process_is_killed_and_a_prompt_that_kills_it_is_refused(guarded_server):
    process, url = guarded_server
    whole = stream(url, 6)
    guard = child_of(process, "guard_worker")
    assert stream(url, 6, lambda: os.kill(guard, signal.SIGKILL)) == whole
    assert child_of(process, "guard_worker") != guard
    deadly = {"model": "m", "messages": [{"role": "user", "content": "die!"}]}
    refused = httpx.post(f"{url}/v1/chat/completions", json=deadly, timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (500, "guard_failed")
    assert stream(url, 6) == whole
