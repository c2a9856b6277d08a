"""Tokenizer directories are Hugging Face's, come back as they were, and are refused when not whole or not safe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as BackendTokenizer

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.tokenizer import CHATML_TEMPLATE, ByteLevelTokenizer, load_tokenizer
from fulmen_core.tokenizer.vocabulary import IM_END

TEXT = "for i in range(10):\n    print(i * 12, 'é😀')\n" * 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    ByteLevelTokenizer.train([TEXT], 512).save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def edited(directory: Path, **changes: object) -> Path:
    path = directory / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")
    return directory


def test_a_saved_tokenizer_loads_as_the_same_one(directory: Path) -> None:
    original, loaded = ByteLevelTokenizer.train([TEXT], 512), load_tokenizer(directory)
    assert loaded.fingerprint == original.fingerprint
    assert loaded.encode(TEXT) == original.encode(TEXT)
    assert loaded.special_ids == original.special_ids


def test_the_library_itself_reads_the_files_and_agrees(directory: Path) -> None:
    library, ours = BackendTokenizer.from_file(str(directory / "tokenizer.json")), load_tokenizer(directory)
    assert library.encode(TEXT).ids == ours.encode(TEXT)
    assert library.decode(ours.encode(TEXT)) == TEXT
    assert library.token_to_id(IM_END) == ours.im_end_id


def test_the_config_files_carry_the_template_and_the_stop_tokens(directory: Path) -> None:
    config = json.loads((directory / "tokenizer_config.json").read_text("utf-8"))
    generation = json.loads((directory / "generation_config.json").read_text("utf-8"))
    assert config["chat_template"] == CHATML_TEMPLATE
    assert generation["eos_token_id"] == list(load_tokenizer(directory).stop_ids)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(directory: Path, share: float) -> None:
    path = directory / "tokenizer.json"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CorruptArtefact, match=r"tokenizer\.json"):
        load_tokenizer(directory)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "WordPiece", "vocab": {}, "unk_token": "?"}},
        {"decoder": None},
        {"normalizer": {"type": "NFKC"}},
        {"added_tokens": []},
        {"model": None},
    ],
)
def test_another_kind_of_tokenizer_is_refused(directory: Path, changes: dict[str, object]) -> None:
    with pytest.raises(CorruptArtefact):
        load_tokenizer(edited(directory, **changes))


def test_a_json_file_that_is_no_object_is_refused(directory: Path) -> None:
    (directory / "tokenizer.json").write_text("[1, 2]", "utf-8")
    with pytest.raises(CorruptArtefact):
        load_tokenizer(directory)


def test_a_merge_that_would_let_text_produce_a_special_token_is_refused(directory: Path) -> None:
    document = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    model = document["model"]
    model["vocab"].update({"<|im_": 512, "end|>": 513})
    model["merges"].append(["<|im_", "end|>"])
    with pytest.raises(CorruptArtefact, match=r"a merge produces the special token <\|im_end\|>"):
        load_tokenizer(edited(directory, model=model))


def test_a_tokenizer_that_does_not_fit_the_model_is_refused_with_both_sizes(directory: Path) -> None:
    tokenizer = load_tokenizer(directory)
    tokenizer.check_model_vocab(512, "runs/x")
    with pytest.raises(UserError, match="512 tokens but the model has a vocabulary of 1024 in runs/x"):
        tokenizer.check_model_vocab(1024, "runs/x")
