"""Chunks hold everything, fit their size, go forward, and say where they stand."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fulmen_tool_retrieval.chunking import UNSPACED_WEIGHT, ChunkSizes, chunk_spans, sentence_spans
from fulmen_tool_retrieval.text_forms import UNSPACED

PIECES = st.sampled_from(
    ["word ", "Dr. ", "end. ", "问题", "。", "？」", "\n\n", "  ", "\t", "longlonglong", "!", "\u3000", "é", "𠀀"]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join)
SIZES = st.integers(6, 60).flatmap(lambda size: st.builds(ChunkSizes, st.just(size), st.integers(0, size // 2)))


def weight(text: str) -> int:
    return len(text) + (UNSPACED_WEIGHT - 1) * len(re.findall(f"[{UNSPACED}]", text))


@given(TEXTS, SIZES)
def test_chunks_cover_every_character_that_is_no_space(text: str, sizes: ChunkSizes) -> None:
    covered = set()
    for span in chunk_spans(text, sizes):
        covered |= set(range(span.start, span.end))
    assert all(at in covered for at, char in enumerate(text) if not char.isspace())


@given(TEXTS, SIZES)
def test_chunks_go_forward_and_begin_and_end_with_text(text: str, sizes: ChunkSizes) -> None:
    spans = list(chunk_spans(text, sizes))
    assert all(one.start < next.start and one.end < next.end for one, next in pairwise(spans))
    assert all(text[span.start : span.end] == text[span.start : span.end].strip() != "" for span in spans)


@given(TEXTS, SIZES)
def test_a_chunk_weighs_no_more_than_its_size_beside_the_spaces_between_its_sentences(
    text: str, sizes: ChunkSizes
) -> None:
    for span in chunk_spans(text, sizes):
        assert weight("".join(text[span.start : span.end].split())) <= sizes.size


def test_a_chunk_repeats_the_end_of_the_one_before() -> None:
    text = "One is here. Two is here. Three is here. Four is here."
    spans = [text[span.start : span.end] for span in chunk_spans(text, ChunkSizes(40, 15))]
    assert spans == ["One is here. Two is here. Three is here.", "Three is here. Four is here."]


def test_chinese_sentences_end_at_their_own_punctuation_and_quotes() -> None:
    text = "他说：“走吧！”然后走了。真的？是。"
    assert [text[s.start : s.end] for s in sentence_spans(text)] == ["他说：“走吧！”", "然后走了。", "真的？", "是。"]


def test_a_long_sentence_is_cut_at_spaces() -> None:
    text = "word " * 40
    assert all(set(text[span.start : span.end].split()) == {"word"} for span in chunk_spans(text, ChunkSizes(33, 0)))
