"""The hashed embedder is TF-IDF over n-grams of characters, within the noise of its projection."""

from __future__ import annotations

import math
import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulmen_tool_retrieval.hashed_ngrams import DIMENSIONS, HashedNgrams, buckets_of
from fulmen_tool_retrieval.text_forms import UNSPACED, folded

WORDS = [
    "ship",
    "ships",
    "shipping",
    "harbour",
    "tea",
    "the",
    "of",
    "über",
    "年假",
    "医生证明",
    "员工",
    "公司",
    "2048",
    "x",
]


def features(text: str) -> Counter[str]:
    """The definition, said once more and slowly."""
    found: Counter[str] = Counter()
    shown = "".join(char if char.isalnum() else " " for char in folded(text))
    line = f" {' '.join(shown.split())} "
    unspaced = re.compile(f"[{UNSPACED}]")
    for length in range(1, 6):
        for at in range(len(line) - length + 1):
            piece = line[at : at + length]
            foreign = len(unspaced.findall(piece))
            if (foreign == length and length <= 3) or (foreign == 0 and length >= 3 and " " not in piece[1:-1]):
                found[f"{length}:{piece}"] += 1
    for word in line.split():
        if not unspaced.search(word) and len(word) <= 64:
            found[f"word:{word}"] += 1
    return found


def cosine(one: Counter[str], other: Counter[str], frequencies: Counter[str], documents: int) -> float:
    def weights(counts: Counter[str]) -> dict[str, float]:
        idf = {key: 1 + math.log((1 + documents) / (1 + frequencies[key])) for key in counts}
        return {key: (1 + math.log(count)) * idf[key] for key, count in counts.items()}

    a, b = weights(one), weights(other)
    length = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
    return sum(a[key] * b[key] for key in a.keys() & b.keys()) / length


def test_inner_products_are_the_cosines_of_tf_idf_within_the_noise_of_the_projection() -> None:
    chance = random.Random()
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(3, 30))) for _ in range(40)]
    vectors = HashedNgrams.fit(texts).embed_documents(texts).astype(np.float64)
    counted = [features(text) for text in texts]
    frequencies = Counter(key for one in counted for key in one)
    exact = np.array([[cosine(a, b, frequencies, len(texts)) for a in counted] for b in counted])
    error = vectors @ vectors.T - exact
    assert np.abs(np.diag(error)).max() < 1e-5
    assert np.sqrt((error**2).mean()) < 1.2 / math.sqrt(DIMENSIONS)


@given(st.text(max_size=80))
def test_every_text_has_as_many_features_as_the_definition_says(text: str) -> None:
    assert len(buckets_of(text)) == sum(features(text).values())


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_feature_has_one_bucket_wherever_it_stands(before: str, after: str) -> None:
    assert set(buckets_of("harbour 年假")) <= set(buckets_of(f"{before} harbour 年假 {after}"))


def test_a_misspelt_word_is_near_and_another_is_not() -> None:
    embedder = HashedNgrams.fit(["greenhouse", "lawnmower", "printer"])
    right, wrong, other = embedder.embed_documents(["greenhouse", "grenhouse", "printer"])
    assert right @ wrong > 0.4 > right @ other + 0.2


def test_a_text_without_letters_is_the_zero_vector() -> None:
    assert not HashedNgrams.fit(["a"]).embed_query(" ?! \u200b").any()


def test_a_table_survives_its_file_and_damage_is_noticed() -> None:
    embedder = HashedNgrams.fit(["one text", "another text"])
    again = HashedNgrams.load(embedder.dump())
    assert np.allclose(again.embed_query("one text"), embedder.embed_query("one text"), atol=1e-3)
    for damaged in (b"", embedder.dump()[:-9], b"\0" * 40):
        with pytest.raises(ValueError, match="damaged"):
            HashedNgrams.load(damaged)
