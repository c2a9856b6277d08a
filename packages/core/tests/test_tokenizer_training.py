"""Training gives exactly the vocabulary asked for, the same one each time."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import UserError
from fulmen_core.tokenizer import ByteLevelTokenizer
from fulmen_core.tokenizer.vocabulary import LARGEST, MULTIPLE, SMALLEST, check_vocab_size

TEXTS = [
    "the quick brown fox\n    jumps over\n        the lazy dog, 12 times\n" * 20,
    "def f(x):\n    return x + 1\n" * 30,
]


@pytest.mark.parametrize("vocab_size", [SMALLEST, 512, 4096, LARGEST])
def test_a_small_corpus_still_gives_exactly_the_vocabulary_asked_for(vocab_size: int) -> None:
    tokenizer = ByteLevelTokenizer.train(TEXTS, vocab_size)
    assert tokenizer.vocab_size == vocab_size
    assert all(tokenizer.token_bytes(i, skip_special=False) for i in range(vocab_size))


def test_the_special_tokens_keep_their_ids_whatever_the_corpus() -> None:
    first, second = ByteLevelTokenizer.train(TEXTS, 512), ByteLevelTokenizer.train(["other"], 1024)
    for tokenizer in (first, second):
        ids = (tokenizer.eos_id, tokenizer.im_start_id, tokenizer.im_end_id, tokenizer.pad_id)
        assert ids == (0, 1, 2, 3)
        assert set(ids) <= tokenizer.special_ids


def test_the_same_texts_give_the_same_tokenizer_in_another_process() -> None:
    train = f"ByteLevelTokenizer.train({TEXTS!r}, 512)"
    code = f"from fulmen_core.tokenizer import ByteLevelTokenizer; print({train}.fingerprint)"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ByteLevelTokenizer.train(iter(TEXTS), 512).fingerprint


def test_a_larger_vocabulary_needs_fewer_tokens() -> None:
    text = inspect.getsource(textwrap)
    assert len(ByteLevelTokenizer.train([text], 1024).encode(text)) < len(
        ByteLevelTokenizer.train([text], SMALLEST).encode(text)
    )


@given(st.integers(-1000, 2 * LARGEST))
@settings(max_examples=50, deadline=None)
def test_a_size_that_is_not_allowed_is_refused_with_the_nearest_that_is(vocab_size: int) -> None:
    allowed = range(SMALLEST, LARGEST + 1, MULTIPLE)
    if vocab_size in allowed:
        check_vocab_size(vocab_size)
        return
    with pytest.raises(UserError, match="nearest valid size is") as caught:
        check_vocab_size(vocab_size)
    named = int(caught.value.remedy.rpartition(" ")[2])
    assert named in allowed
    assert abs(named - vocab_size) == min(abs(size - vocab_size) for size in allowed)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_a_corpus_without_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(UserError, match="the corpus is empty"):
        ByteLevelTokenizer.train(texts, 512)


def test_a_lone_surrogate_in_the_corpus_is_refused_with_the_text_it_is_in() -> None:
    with pytest.raises(UserError, match=r"U\+DC80 at character 1 in training text 1"):
        ByteLevelTokenizer.train(["good", "b\udc80d"], 512)
