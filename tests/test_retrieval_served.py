"""`fulmen serve` with retrieval, as a user runs it: indexed documents, a real model, a call that it is made to write.

The model is random, so what it looks for means nothing. That it calls, that the call is run, that the result is judged
and read, and that the answer goes on does not depend on that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import torch

from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_core.tokenizer import ByteLevelTokenizer, load_tokenizer

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random nano model with room for a result."""
    folder = tmp_path_factory.mktemp("model") / "nano"
    folder.mkdir()
    text = [path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("how-to/*.md"))]
    tokenizer = ByteLevelTokenizer.train(text, 1024)
    tokenizer.save(folder)
    stop = [tokenizer.im_end_id, tokenizer.eos_id]
    change = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 2048, "eos_token_id": stop}
    torch.manual_seed(0)
    save_model(Transformer(load_preset("nano").model_copy(update=change)), folder)
    return folder


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("handbook")
    letters = "a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9"
    (folder / "letters.md").write_text(f"# Letters\n\n{letters}\n", encoding="utf-8")
    (folder / "trains.md").write_text("# Trains\n\nTrains are second class.\n", encoding="utf-8")
    fulmen = [sys.executable, "-m", "fulmen_core"]
    subprocess.run([*fulmen, "retrieval", "index", str(folder), "--to", str(folder / "a.db")], check=True)
    serve = ["--threads", "1", "serve", "--model", str(model), "--backend", "cpu", "--port", "0"]
    tools = ["--tools", "retrieval", "--tool-option", f"retrieval.index={folder / 'a.db'}", "--tool-rounds", "2"]
    with subprocess.Popen([*fulmen, *serve, *tools], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next((line for line in process.stderr if line.startswith("Serving ")), "")
        assert ", tools retrieval" in line
        url = line.split(" on ")[1].split()[0]
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            yield client
        process.terminate()
        assert process.wait(20) == 0


def test_a_real_model_looks_something_up_and_goes_on(served: openai.OpenAI, model: Path) -> None:
    quote = load_tokenizer(model).encode('"')
    asked = {
        "model": "nano",
        "messages": [{"role": "user", "content": "Look it up."}],
        "max_tokens": 160,
        "seed": 1,
        "tool_choice": {"type": "function", "function": {"name": "retrieval"}},
        "logit_bias": {str(token): 8 for token in quote},  # a random model would hardly ever end its query
        "extra_body": {"server_tools": ["retrieval"]},
    }
    done = served.chat.completions.create(**asked)
    [choice] = done.choices
    first = choice.message.model_extra["server_tools"][0]
    assert (first["name"], first["status"]) == ("retrieval", "ok")
    assert json.loads(first["arguments"])["query"]
    assert "No passage" in first["content"] or json.loads(first["content"].split("\n\n")[1])["source"].endswith(".md")
    assert choice.message.tool_calls is None
    asked_once = served.chat.completions.create(**{**asked, "max_tokens": 1}).usage
    assert done.usage.prompt_tokens > 2 * asked_once.prompt_tokens  # it went on from more than it began with
    assert "<tool_call>" not in choice.message.content

    chunks = list(served.chat.completions.create(**asked, stream=True))
    events = [event for chunk in chunks for event in chunk.choices[0].delta.model_extra.get("server_tools") or ()]
    assert [event["status"] for event in events[:2]] == ["running", "ok"]
    assert events[1]["arguments"] == first["arguments"]  # the seed is the request's, whatever runs beside it
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == choice.message.content


def test_without_the_field_nothing_is_run(served: openai.OpenAI) -> None:
    say = [{"role": "user", "content": "Look it up."}]
    done = served.chat.completions.create(model="nano", messages=say, max_tokens=8)
    assert "server_tools" not in (done.choices[0].message.model_extra or {})
