"""Claims about `fulmen serve` as a process, and about everything that can be wrong with its arguments."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading

import httpx
import openai
import pytest

from fulmen_core.cli import main
from fulmen_core.generation import generate
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams


@pytest.fixture(scope="module")
def process(kit, nano_directory):
    """A real `fulmen serve` on the CPU backend, whose answers are the same to the last bit whatever it did before."""
    options = ["--port", "0", "--no-guard", "--backend", "cpu", "--max-sequences", "4", "--batch-invariant"]
    with kit.process("--threads", "1", "serve", "--model", str(nano_directory), *options) as served:
        yield served


def test_a_real_model_is_served_and_answers_like_the_runner_alone(process, nano_directory, tokenizer):
    _, url, lines = process
    assert "warning: serving without a guard" in lines[0]
    assert lines[-1].startswith("Serving nano on http://127.0.0.1:")
    messages = [{"role": "user", "content": "the quick brown fox"}]
    prompt = tokenizer.encode_chat(messages, add_generation_prompt=True)
    runner = Registry.discover().backend("cpu").load_runner(nano_directory, EngineLimits(2, 128, 64))
    try:
        [alone] = generate(runner, [prompt], SamplingParams(temperature=0, max_tokens=24), tokenizer.stop_ids)
    finally:
        runner.close()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        [model] = client.models.list()
        asked = {"model": model.id, "messages": messages, "max_tokens": 24}
        crowd = [client.chat.completions.create(**asked, stream=True) for _ in range(3)]
        done = client.chat.completions.create(**asked, temperature=0)
        assert done.choices[0].message.content == tokenizer.decode(alone)
        assert done.usage.completion_tokens == len(alone)
        assert done.system_fingerprint.startswith("fp_")
        seeded = [client.chat.completions.create(**asked, seed=11).choices[0].message.content for _ in range(2)]
        assert seeded[0] == seeded[1]
        for stream in crowd:
            assert list(stream)[-1].choices[0].finish_reason in ("stop", "length")


def test_an_answer_of_a_real_model_goes_on_when_its_process_is_killed(kit, process):
    served, url, _ = process
    [child] = kit.children(served)
    asked = {"model": "nano", "messages": [{"role": "user", "content": "once"}], "seed": 5, "max_tokens": 300}
    asked["extra_body"] = {"ignore_eos": True}  # drawn, and to the end: a random model's likeliest token may be no text
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        whole = client.chat.completions.create(**asked).choices[0]
        text = ""
        for piece, chunk in enumerate(client.chat.completions.create(**asked, stream=True)):
            text += chunk.choices[0].delta.content or ""
            if piece == 5:
                os.kill(child, signal.SIGKILL)
        assert text == whole.message.content
        assert chunk.choices[0].finish_reason == whole.finish_reason
    kit.wait_until(lambda: "fulmen_model_restarts_total 1.0" in httpx.get(f"{url}/metrics").text, "it is counted")


def test_sigterm_finishes_what_runs_and_exits_well(process):
    served, url, _ = process
    finish = []

    def read():
        asked = {"model": "nano", "messages": [{"role": "user", "content": "go"}], "stream": True, "max_tokens": 200}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked, timeout=60) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    finish.append(json.loads(line[6:])["choices"][0]["finish_reason"])
                    started.set()

    started = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(30)
    served.send_signal(signal.SIGTERM)
    reader.join(60)
    assert finish[-1] in ("stop", "length")
    assert served.wait(20) == 0
    assert "Traceback" not in served.stderr.read()


@pytest.fixture(autouse=True)
def never_serves(monkeypatch):
    """A fault that is missed fails its test at once; the served process above is another process."""
    monkeypatch.setattr("fulmen_serving.server.DrainingServer.run", lambda *_, **__: pytest.fail("it serves"))


def fails(capsys, *arguments):
    """Run `fulmen`; return the sentence it ends with."""
    code = main(list(arguments))
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, ""), captured.err
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("fulmen: error: ")
    assert "Serving" not in captured.err
    return last


def test_a_busy_port_is_found_before_the_model_is_read(nano_directory, capsys, monkeypatch):
    monkeypatch.setattr("fulmen_serving.loading.load_service", lambda *_: pytest.fail("the model was read"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        sentence = fails(capsys, "serve", "--model", str(nano_directory), "--no-guard", "--port", port)
    assert f"port {port} of 127.0.0.1 is in use: stop what uses it, or choose another with --port" in sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no --model"),
        (["--model", "/no/such/place"], "model directory /no/such/place does not exist"),
        (["--model", "{file}"], "is not a directory"),
        (["--model", "{empty}"], "config.json"),
        (["--model", "{bare}"], "holds no model: neither fulmen_artefact.json nor model.safetensors"),
        (["--model", "{artefact}"], "no installed backend serves a model of the format 'stone'"),
        (["--model", "{artefact}", "--backend", "cpu"], "the backend cpu serves checkpoint, not stone"),
        (["--model", "{misfit}"], "the tokenizer has 512 tokens but the model has a vocabulary of 1024"),
        (["--model", "{torn}"], "model.safetensors"),
        (["--model", "{nano}", "--backend", "cpuu"], "did you mean 'cpu'?"),
        (["--model", "{nano}", "--max-context", "100000"], "longer than the 512 the model was made for"),
        (["--model", "{nano}", "--max-sequences", "0"], "max_sequences 0 is less than 1"),
        (["--model", "{nano}", "--max-waiting", "-1"], "max_waiting -1 is negative"),
        (["--model", "{nano}", "--port", "x"], "invalid int value: 'x'"),
        (["--model", "{nano}", "--port", "99999"], "port 99999 does not lie between 0 and 65535"),
        (["--model", "{nano}", "--host", "no.such.host.invalid"], "is no address of this machine"),
        (["--model", "{nano}", "--guard-wait-ms", "-1"], "--guard-wait-ms -1 is not between 0 and 1000"),
        (["--model", "{nano}", "--guard-wait-ms", "nan"], "--guard-wait-ms nan is not between 0 and 1000"),
        (["--model", "{nano}", "--cached-prefixes", "-1"], "-1 is negative: give --cached-prefixes 0 or more"),
        (["--model", "{nano}", "--kv-tokens", "10"], "less than one context of 512 tokens: raise --kv-tokens or lower"),
        (["--model", "{nano}", "--speculate", "nowhere"], "the model directory nowhere does not exist"),
        (["--model", "{nano}", "--speculate", "ngram", "--draft-tokens", "0"], "give --draft-tokens 1 or more"),
        (["--model", "{nano}", "--speculate", "ngram", "--batch-invariant"], "leave --speculate out"),
        (["--model", "{nano}", "--modle", "x"], "did you mean --model?"),
    ],
)
def test_a_fault_of_the_arguments_is_one_sentence(arguments, words, nano_directory, tokenizer, tmp_path, capsys):
    places = {"nano": nano_directory, "file": tmp_path / "file"}
    places["file"].write_text("x")
    for name in ("empty", "bare", "artefact", "misfit", "torn"):
        places[name] = tmp_path / name
        places[name].mkdir()
        if name != "empty":
            shutil.copytree(nano_directory, places[name], dirs_exist_ok=True)
    (places["bare"] / "model.safetensors").unlink()
    (places["artefact"] / "fulmen_artefact.json").write_text('{"format": "stone"}')
    config = json.loads((nano_directory / "config.json").read_text())
    (places["misfit"] / "config.json").write_text(json.dumps(config | {"vocab_size": 1024}))
    weights = places["torn"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    filled = [argument.format(**places) for argument in arguments]
    port = [] if "--port" in filled else ["--port", "0"]
    assert words in fails(capsys, "serve", "--no-guard", *port, *filled)


def test_without_its_guard_nothing_is_served_and_the_sentence_says_what_to_install(nano_directory, capsys):
    sentence = fails(capsys, "--no-plugin", "fulmen-safety", "serve", "--model", str(nano_directory), "--port", "0")
    assert "not served without its guard" in sentence
    assert "fulmen-safety" in sentence
    assert "--no-guard" in sentence


def test_a_missing_policy_and_contradicting_options_are_one_sentence(nano_directory, capsys):
    model = ["serve", "--model", str(nano_directory), "--port", "0"]
    assert "there is no policy file nowhere.toml" in fails(capsys, *model, "--policy", "nowhere.toml")
    assert "contradict each other" in fails(capsys, *model, "--policy", "nowhere.toml", "--no-guard")
