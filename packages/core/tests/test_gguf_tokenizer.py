"""A tokenizer that a GGUF file carries encodes as the tokenizer.json it was converted from."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fulmen_core.errors import UserError
from fulmen_core.formats.gguf.fields import Fields
from fulmen_core.formats.gguf.pre_tokenizers import PRE_TOKENIZERS
from fulmen_core.formats.gguf.vocabulary import merges_of_scores, tokenizer_files
from fulmen_core.tokenizer.foreign import ForeignTokenizer

from . import open_tokenizers as forms

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
PRE = {"smollm2": "smollm", "qwen": "qwen2", "neox": "gpt-2", "llama 3": "llama-bpe"}


def metadata_of(form: str) -> dict[str, Any]:
    """What llama.cpp's converter writes about the tokenizer of a form."""
    _, named, template = forms.FORMS[form]
    document = json.loads(forms.document(form))
    vocab = dict(document["model"]["vocab"])
    added = {token["content"]: token["special"] for token in document["added_tokens"]}
    vocab |= {token["content"]: token["id"] for token in document["added_tokens"]}
    tokens = sorted(vocab, key=vocab.__getitem__)
    types = [(CONTROL if added[token] else USER_DEFINED) if token in added else NORMAL for token in tokens]
    merges = [tuple(merge) for merge in document["model"]["merges"]]
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "tokenizer.ggml.model": "gpt2" if form in PRE else "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.chat_template": template,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
    }
    if form in PRE:
        metadata["tokenizer.ggml.pre"] = PRE[form]
    else:
        types = [BYTE if token.startswith("<0x") else kind for token, kind in zip(tokens, types, strict=True)]
        types[vocab["<unk>"]] = UNKNOWN
    metadata["tokenizer.ggml.token_type"] = np.array(types, np.int32)
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if f"{name}_token" in named:
            metadata[f"tokenizer.ggml.{key}_token_id"] = vocab[named[f"{name}_token"]]
    return metadata


def made(metadata: Mapping[str, Any]) -> ForeignTokenizer:
    return ForeignTokenizer(tokenizer_files(Fields(metadata, Path("model.gguf")), 10_000))


@pytest.mark.parametrize("form", [*PRE, "llama 2"])
def test_it_encodes_as_the_tokenizer_it_was_made_from(form: str, tmp_path: Path) -> None:
    original = ForeignTokenizer.load(forms.save(form, tmp_path))
    ours = made(metadata_of(form))
    for text in forms.TEXTS:
        assert ours.encode(text) == original.encode(text), text
        assert ours.encode_prompt(text) == original.encode_prompt(text), text
        assert ours.decode(ours.encode(text)) == original.decode(original.encode(text)), text
    messages = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Yes?"}]
    assert ours.encode_chat(messages) == original.encode_chat(messages)
    assert ours.special_ids == original.special_ids


def test_merges_recovered_from_scores_are_those_of_transformers() -> None:
    from transformers.tokenization_utils_base import generate_merges

    tokens = sorted({"".join(random.choices("ab▁c", k=random.randint(1, 5))) for _ in range(120)})
    scores = [-float(index) for index in random.sample(range(len(tokens)), len(tokens))]
    vocab = {token: index for index, token in enumerate(tokens)}
    expected = generate_merges(vocab, dict(zip(tokens, scores, strict=True)))
    assert merges_of_scores(tokens, scores, frozenset()) == expected


def test_scores_alone_encode_as_merges_do() -> None:
    """SentencePiece's order: the earlier a merge was learned, the higher the score of what it makes."""
    metadata = metadata_of("llama 2")
    by_merges = made(metadata)
    ranks = {merge.replace(" ", ""): rank for rank, merge in enumerate(metadata.pop("tokenizer.ggml.merges"))}
    scores = [-float(ranks.get(token, 10_000)) for token in metadata["tokenizer.ggml.tokens"]]
    by_scores = made({**metadata, "tokenizer.ggml.scores": np.array(scores, np.float32)})
    for text in forms.TEXTS:
        assert by_scores.decode(by_scores.encode(text)) == by_merges.decode(by_merges.encode(text))
    assert sum(len(by_scores.encode(text)) for text in forms.TEXTS) == pytest.approx(
        sum(len(by_merges.encode(text)) for text in forms.TEXTS), rel=0.02
    )


def test_a_file_without_a_space_in_front_says_so() -> None:
    tokenizer = made({**metadata_of("llama 2"), "tokenizer.ggml.add_space_prefix": False})
    assert tokenizer.decode(tokenizer.encode("fox")) == "fox"
    assert tokenizer.token_bytes(tokenizer.encode("fox")[0])[:1] != b" "


def test_a_file_that_says_nothing_of_bos_gets_that_of_its_kind() -> None:
    for form, begins in (("llama 2", True), ("llama 3", True), ("smollm2", False)):
        metadata = metadata_of(form)
        bos = metadata["tokenizer.ggml.bos_token_id"]
        assert (made(metadata).encode_prompt("x")[0] == bos) is begins
        stated = made({**metadata, "tokenizer.ggml.add_bos_token": not begins})
        assert (stated.encode_prompt("x")[0] == bos) is not begins


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokeniser_is_one_that_the_library_reads(pre: str) -> None:
    tokenizer = made({**metadata_of("neox"), "tokenizer.ggml.pre": pre})
    for text in ("Hello world, it's 12345!\n\n  x", "世界 Ünïcode"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer.ggml.model": "bert"}, "the tokenizer model 'bert' is not supported"),
        ({"tokenizer.ggml.pre": "klingon"}, "the pre-tokeniser 'klingon' is not supported"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "has a token twice"),
        ({"tokenizer.ggml.tokens": [str(index) for index in range(10_001)]}, "more tokens than the 10000 embeddings"),
        ({"tokenizer.ggml.token_type": np.array([1, 2])}, "not a list of"),
        ({"tokenizer.ggml.merges": ["ab"]}, "not pairs separated by a space"),
        ({"tokenizer.ggml.bos_token_id": 99_999}, "bos_token_id is 99999"),
        ({"tokenizer.chat_template": 7}, "tokenizer.chat_template is 7, not a text"),
    ],
)
def test_a_field_that_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        made({**metadata_of("smollm2"), **changes})


def test_a_file_without_a_tokenizer_gives_none() -> None:
    fields = Fields({"general.architecture": "llama"}, Path("model.gguf"))
    assert tokenizer_files(fields, 10) == {}
