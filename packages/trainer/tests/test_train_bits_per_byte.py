"""Held-out bits per byte: every token once, each document alone, and exact where the answer is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import UserError
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_core.tokenizer import Tokenizer
from fulmen_trainer.bits_per_byte import _windows, evaluate_bits_per_byte

DOCUMENTS = ["class value token index " * 9, "return self", "层 router.cache " * 5]


@pytest.fixture(scope="module")
def model(training_tokenizer: Tokenizer, tiny_model: dict[str, Any]) -> Transformer:
    torch.manual_seed(1)
    keys = load_preset("nano").model_dump() | tiny_model | {"vocab_size": training_tokenizer.vocab_size}
    return Transformer(ModelConfig.model_validate(keys)).eval()


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 200), st.integers(1, 40), st.integers(1, 40))
def test_windows_score_every_target_once_with_the_context_they_promise(tokens: int, length: int, stride: int) -> None:
    stride = min(stride, length)
    scored: list[int] = []
    for window in _windows(range(tokens), length, stride):
        assert len(window.ids) <= length + 1
        targets = list(window.ids[1:])[-window.scored :]
        if targets[0] > length:
            assert targets[0] - window.ids[0] > length - stride
        scored += targets
    assert scored == list(range(1, tokens))


def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary_for_each_token(
    model: Transformer, training_tokenizer: Tokenizer
) -> None:
    ignorant = Transformer(model.config)
    torch.nn.init.zeros_(ignorant.embed.weight)
    result = evaluate_bits_per_byte(ignorant, training_tokenizer, DOCUMENTS, sequence_length=16)
    tokens = sum(len(training_tokenizer.encode(document)) for document in DOCUMENTS)
    size = sum(len(document.encode()) for document in DOCUMENTS)
    assert (result["tokens"], result["bytes"], result["documents"]) == (tokens, size, 3)
    expected = tokens * math.log2(model.config.vocab_size) / size
    assert result["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


def test_it_is_what_the_plain_loss_of_one_window_says(model: Transformer, training_tokenizer: Tokenizer) -> None:
    text = "value self layer"
    ids = torch.tensor([[training_tokenizer.eos_id, *training_tokenizer.encode(text)]])
    with torch.no_grad():
        logits = model.logits(model(ids[:, :-1]).hidden_BTD)
    nats = torch.nn.functional.cross_entropy(logits[0], ids[0, 1:], reduction="sum")
    result = evaluate_bits_per_byte(model, training_tokenizer, [text], sequence_length=64)
    assert result["nats"] == pytest.approx(float(nats), rel=1e-5)


def test_documents_are_isolated_and_the_batch_size_does_not_matter(
    model: Transformer, training_tokenizer: Tokenizer
) -> None:
    def nats(documents: list[str], batch_size: int) -> float:
        return evaluate_bits_per_byte(model, training_tokenizer, documents, sequence_length=16, batch_size=batch_size)[
            "nats"
        ]

    alone = sum(nats([document], 3) for document in DOCUMENTS)
    assert nats(DOCUMENTS, 1) == pytest.approx(alone, rel=1e-5)
    assert nats(DOCUMENTS[::-1], 7) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("documents", [[], [""]])
def test_nothing_to_evaluate_on_is_refused(
    model: Transformer, training_tokenizer: Tokenizer, documents: list[str]
) -> None:
    with pytest.raises(UserError, match="no held-out text"):
        evaluate_bits_per_byte(model, training_tokenizer, documents, sequence_length=16)
