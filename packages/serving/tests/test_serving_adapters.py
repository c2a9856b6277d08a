"""Claims about LoRA adapters as clients meet them: models of their own names, there as soon as their folder is."""

from __future__ import annotations

import logging
import os
import shutil
import signal

import httpx
import openai
import pytest
import torch

from fulmen_core.cli import main
from fulmen_core.generation import generate
from fulmen_core.model.checkpoint import load_model, save_model
from fulmen_core.model.config_file import load_config
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
from fulmen_serving.adapter_folder import AdapterFolder
from fulmen_serving.api.edge import Edge
from fulmen_serving.loading import ServingOptions, load_service
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.platform import Platform
from fulmen_serving.platform.prices import Price, PriceTable

ASKED = {"messages": [{"role": "user", "content": "the quick brown fox"}], "max_tokens": 16, "seed": 7}


@pytest.fixture
def folder(tmp_path, write_adapter):
    """Two adapters of the nano model."""
    (tmp_path / "adapters").mkdir()
    for name in ("red", "green"):
        write_adapter(tmp_path / "adapters" / name)
    return tmp_path / "adapters"


@pytest.fixture
def served(kit, nano_directory, folder):
    """A real server of the nano model and its adapters, of which two are loaded at once."""
    options = ["--port", "0", "--no-guard", "--backend", "cpu", "--max-sequences", "4", "--batch-invariant"]
    adapters = ["--adapters", str(folder), "--max-adapters", "2"]
    with kit.process("--threads", "1", "serve", "--model", str(nano_directory), *options, *adapters) as process:
        yield process


def said(url, **asked):
    answer = httpx.post(f"{url}/v1/chat/completions", json=ASKED | {"ignore_eos": True} | asked, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def merged(model, adapter, out):
    """The model with the adapter in its weights, W + scaling B A, computed in float64."""
    from safetensors.torch import load_file

    changed = load_model(model)
    parts = load_file(adapter / "adapter_model.safetensors")
    for layer in range(8):
        a, b = (parts[f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{part}.weight"] for part in "AB")
        weight = changed.block(layer).attention.q_proj.weight
        weight.data = (weight.double() + 2 * b.double() @ a.double()).float()
    out.mkdir()
    save_model(changed, out)
    return out


def alone(model, tokenizer):
    """What the model says when it is asked alone, without a server."""
    runner = Registry.discover().backend("cpu").load_runner(model, EngineLimits(1, 512, 512))
    try:
        [answer] = generate(
            runner,
            [tokenizer.encode_chat(ASKED["messages"], add_generation_prompt=True)],
            SamplingParams(max_tokens=16, seed=7),
            (),
        )
    finally:
        runner.close()
    return tokenizer.decode(answer)


def test_each_answers_like_the_model_with_the_adapter_in_its_weights_whatever_runs_beside_it(
    served, nano_directory, folder, tokenizer, tmp_path
):
    torch.set_num_threads(1)
    _, url, _ = served
    expected = {"nano": alone(nano_directory, tokenizer)}
    for name in ("red", "green"):
        expected[name] = alone(merged(nano_directory, folder / name, tmp_path / name), tokenizer)
    assert len(set(expected.values())) == 3
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        listed_models = {model.id: getattr(model, "parent", None) for model in client.models.list()}
        assert listed_models == {"nano": None, "green": "nano", "red": "nano"}
        extra = {"ignore_eos": True}
        streams = [
            client.chat.completions.create(model=name, **ASKED, extra_body=extra, stream=True) for name in expected
        ]
        pieces = [[chunk for chunk in stream if chunk.choices] for stream in streams]
    for name, chunks in zip(expected, pieces, strict=True):
        assert {chunk.model for chunk in chunks} == {name}
        assert (name, "".join(chunk.choices[0].delta.content or "" for chunk in chunks)) == (name, expected[name])


def test_an_adapter_is_served_from_when_it_is_there_until_it_is_gone_and_anew_when_it_changes(
    kit, served, folder, write_adapter
):
    _, url, _ = served
    before = {name: said(url, model=name) for name in ("nano", "red", "green")}
    write_adapter(folder / "blue", rank=5)
    assert said(url, model="blue") not in before.values()  # the third, where two are loaded at once
    kit.wait_until(lambda: "fulmen_loaded_adapters 2.0" in httpx.get(f"{url}/metrics").text, "it is counted")
    write_adapter(folder / "red", rank=3)
    assert said(url, model="red") != before["red"]
    assert said(url, model="green") == before["green"]
    shutil.rmtree(folder / "green")
    refused = httpx.post(f"{url}/v1/chat/completions", json=ASKED | {"model": "green"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert said(url, model="nano") == before["nano"]


def test_every_protocol_knows_them(served):
    _, url, _ = served
    say = {"messages": ASKED["messages"], "max_tokens": 8, "temperature": 1.0}
    asked = {
        "/v1/chat/completions": say | {"seed": 1},
        "/v1/completions": {"prompt": "once", "max_tokens": 8, "seed": 1},
        "/v1/responses": {"input": "once", "max_output_tokens": 16},
        "/v1/messages": say,
        "/v1/embeddings": {"input": "once"},
    }
    for path, body in asked.items():
        answers = [httpx.post(f"{url}{path}", json={"model": name} | body, timeout=60) for name in ("red", "green")]
        assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
        assert [answer.json()["model"] for answer in answers] == ["red", "green"]
        if path == "/v1/embeddings":
            assert len({str(answer.json()["data"]) for answer in answers}) == 2
        missing = httpx.post(f"{url}{path}", json={"model": "blue"} | body)
        assert missing.status_code == 404
    assert httpx.post(f"{url}/tokenize", json={"model": "red", "prompt": "once"}).status_code == 200
    assert httpx.get(f"{url}/v1/models/red").json()["parent"] == "nano"
    assert httpx.get(f"{url}/v1/models", headers={"anthropic-version": "2023-06-01"}).json()["last_id"] == "red"


def test_what_they_computed_is_metered_under_their_names(kit, nano_directory, folder, tmp_path):
    database = Database(str(tmp_path / "p.db"))
    platform = Platform(database, PriceTable({"nano": Price(2, 3), "red": Price(1, 1)}, base="nano"))
    headers = {"Authorization": f"Bearer {platform.keys.create('one')[0]}"}
    options = ServingOptions(nano_directory, backend="cpu", guarded=False, max_sequences=2, adapters=folder)
    service = load_service(options, Registry.discover())
    try:
        with kit.server(service, edge=Edge(platform)) as url:
            used = {
                name: httpx.post(f"{url}/v1/chat/completions", json=ASKED | {"model": name}, headers=headers).json()[
                    "usage"
                ]
                for name in ("nano", "red", "green")
            }
        platform.meter.flush()
        rows = {row.model: row for row in platform.usage.report()}
    finally:
        service.close()
        platform.close()
    for name, (prompt, completion) in {"nano": (2, 3), "red": (1, 1), "green": (2, 3)}.items():
        usage = used[name]
        assert rows[name].used.cost == prompt * usage["prompt_tokens"] + completion * usage["completion_tokens"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--adapters", "nowhere"), "there is no folder nowhere: check the path given with --adapters"),
        (("--adapters", ".", "--max-adapters", "0"), "with 0 no adapter is served: give --max-adapters 1 or more"),
        (("--adapters", ".", "--max-adapter-rank", "0"), "give --max-adapter-rank 1 or more"),
    ],
)
def test_a_fault_of_the_options_is_one_sentence(nano_directory, arguments, words, capsys):
    assert main(["serve", "--model", str(nano_directory), "--no-guard", "--port", "0", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_an_answer_with_an_adapter_goes_on_when_its_process_is_killed(kit, served):
    process, url, _ = served
    [child] = kit.children(process)
    asked = {"model": "red", **ASKED, "max_tokens": 200}
    whole = said(url, **asked)
    assert whole != said(url, **asked | {"model": "nano"})
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        text = ""
        for piece, chunk in enumerate(
            client.chat.completions.create(**asked, extra_body={"ignore_eos": True}, stream=True)
        ):
            text += chunk.choices[0].delta.content or ""
            if piece == 5:
                os.kill(child, signal.SIGKILL)
    assert piece > 5
    assert text == whole


def test_what_does_not_fit_the_model_is_listed_nowhere_and_said_in_the_log_alone(
    nano_directory, folder, write_adapter, caplog
):
    adapters = AdapterFolder(folder, "nano", load_config(nano_directory), 4)
    write_adapter(folder / "wide", {"model.layers.0.self_attn.q_proj": (64, 96)})
    write_adapter(folder / "high", rank=5)
    write_adapter(folder / "dora", use_dora=True)
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("no adapter")
    with caplog.at_level(logging.WARNING):
        assert [adapter.name for adapter in adapters.all()] == ["green", "red"]
        assert [adapter.name for adapter in adapters.all()] == ["green", "red"]
    told = [record.getMessage() for record in caplog.records]
    assert [message.split(" is not served: ")[0] for message in told] == [
        f"the adapter {n}" for n in ("dora", "empty", "high", "wide")
    ]
    assert adapters.find("notes.txt") is None
    shutil.rmtree(folder)
    assert adapters.all() == []
    assert adapters.find("red") is None


@pytest.mark.parametrize("name", ["..", ".", "../outside", "sub/dir", "/etc", "", ".hidden", "red/", "r\0d", "a" * 300])
def test_no_name_leads_out_of_the_folder(nano_directory, folder, write_adapter, name):
    adapters = AdapterFolder(folder, "nano", load_config(nano_directory), 64)
    write_adapter(folder.parent / "outside")
    write_adapter(folder / ".hidden")
    assert adapters.find(name) is None


def test_an_adapter_called_like_the_model_does_not_take_its_place(nano_directory, folder, write_adapter):
    write_adapter(folder / "nano")
    adapters = AdapterFolder(folder, "nano", load_config(nano_directory), 64)
    assert [adapter.name for adapter in adapters.all()] == ["green", "red"]
