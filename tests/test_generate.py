"""`fulmen generate` gives the model's own greedy answer on every backend, and says what is wrong with a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen_core.cli import main
from fulmen_core.model.checkpoint import load_model
from fulmen_core.tokenizer import load_tokenizer


def generated(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["generate", *words, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.parametrize("backend", ["cpu", "onnxruntime"])
def test_greedy_tokens_are_the_likeliest_of_the_model(
    backend: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = generated(
        capsys, "--model", str(models / backend), "--prompt", "def f(x):", "--max-tokens", "12", "--greedy"
    )
    tokenizer = load_tokenizer(models / "cpu")
    prompt, new = answer["prompt_token_ids"], answer["token_ids"]
    assert answer["backend"] == backend
    assert prompt == [tokenizer.eos_id, *tokenizer.encode("def f(x):")]
    assert answer["text"] == tokenizer.decode(new)
    model = load_model(models / "cpu")
    with torch.inference_mode():
        logits_BTV = model.logits(model(torch.tensor([[*prompt, *new]])).hidden_BTD)
    assert logits_BTV[0, len(prompt) - 1 : -1].argmax(-1).tolist() == new


def test_a_chat_prompt_is_the_templates_and_a_seed_repeats_the_draws(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", str(models / "cpu"), "--prompt", "Hi", "--chat", "--max-tokens", "8", "--seed", "3")
    first, second = (generated(capsys, *words, "--system", "Be brief.") for _ in range(2))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert first["prompt_token_ids"] == load_tokenizer(models / "cpu").encode_chat(messages, True)
    assert first["token_ids"] == second["token_ids"]


def test_text_alone_goes_to_stdout(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", str(models / "cpu"), "--prompt", "def", "--max-tokens", "4", "--greedy"]
    answer = generated(capsys, *words)
    assert main(["generate", *words]) == 0
    assert capsys.readouterr().out == answer["text"] + "\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-tokens", "100000"], "exceed the"),
        (["--max-tokens", "0"], "max_tokens 0 is less than 1"),
        (["--greedy", "--temperature", "1"], "contradict each other"),
        (["--system", "x"], "--system needs --chat"),
        (["--dtype", "int3"], "does not serve in int3"),
        (["--backend", "tpu"], "unknown backend 'tpu'"),
        (["--top-p", "2"], "top_p 2.0 does not lie in (0, 1]"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    words: list[str], said: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--model", str(models / "cpu"), "--prompt", "x", *words]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_is_no_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", str(tmp_path / "smollm3"), "--prompt", "x"]) == 2
    assert "smollm3 does not exist" in capsys.readouterr().err
