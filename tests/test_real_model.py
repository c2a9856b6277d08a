"""A real model: SmolLM2-135M-Instruct out of its wheel computes what transformers reads in the same file, and chats.

The file (98 MB) is kept in the user's cache folder between runs. Without a package index these tests are skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.formats.gguf.checkpoint import read
from fulmen_core.formats.known_models import KNOWN_MODELS, fetch
from fulmen_core.formats.writing import write_model
from fulmen_core.settings import Settings
from fulmen_core.tokenizer import load_tokenizer

PROMPT = "The capital of France is"
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def gguf_file() -> Path:
    try:
        return fetch(KNOWN_MODELS["smollm2"], Settings().cache_dir / "downloads")
    except CorruptArtefact:
        raise
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smollm2") / "smollm2"
    write_model(read(gguf_file), out)
    return out


def generated(folder: Path, prompt: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "fulmen_core", "generate", "--model", str(folder), "--prompt", prompt, *options]
    result = subprocess.run([*command, "--greedy", "--json"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_logits_and_greedy_tokens_are_those_of_transformers(gguf_file: Path, folder: Path) -> None:
    import transformers

    from fulmen_core.model.checkpoint import load_model

    reference = transformers.AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    ).eval()
    answer = generated(folder, PROMPT, "--max-tokens", "20")
    prompt, new = answer["prompt_token_ids"], answer["token_ids"]
    tokens_BT = torch.tensor([[*prompt, *new]])
    model = load_model(folder)
    with torch.inference_mode():
        expected_BTV = reference(tokens_BT, use_cache=False).logits
        ours_BTV = model.logits(model(tokens_BT).hidden_BTD)
    assert (ours_BTV - expected_BTV).abs().max() <= 1e-4 * expected_BTV.abs().max()
    # Each new token is the one that transformers would take behind those before it: its greedy answer, in one pass.
    assert len(new) == 20
    assert expected_BTV[0, len(prompt) - 1 : -1].argmax(-1).tolist() == new


def test_the_tokenizer_is_that_of_the_checkpoint(gguf_file: Path, folder: Path) -> None:
    """Numbers apart: transformers does not split digits when it reads this file, as the model's own tokenizer does."""
    import transformers

    reference = transformers.AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    tokenizer = load_tokenizer(folder)
    for text in ("Hello world, it's me!", "  spaced\n\n\tout", "Grüße, 世界 😀", "def f(x):\n    return x\n"):
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False), text
    messages = [{"role": "user", "content": QUESTION}]
    expected = reference.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.encode_chat(messages, add_generation_prompt=True) == expected
    assert [tokenizer.decode([token_id]) for token_id in tokenizer.encode("2025")] == ["2", "0", "2", "5"]


def test_it_answers_a_question(folder: Path) -> None:
    answer = generated(folder, QUESTION, "--chat", "--max-tokens", "40")
    assert "Paris" in str(answer["text"])
    assert answer["finish_reason"] == "stop"


def test_verbs_take_its_name_for_its_folder(gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULMEN_CACHE_DIR", str(tmp_path))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / gguf_file.name).symlink_to(gguf_file)
    commands = (["model", "show"], ["export", "--to", "huggingface", "--no-check", "--out", str(tmp_path / "back")])
    for words in commands:
        command = [sys.executable, "-m", "fulmen_core", *words, "--model", "smollm2", "--json"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "back" / "config.json").read_text())["model_type"] == "llama"
