"""Streamed text is the decoded text, cut only between characters."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.tokenizer import ByteLevelTokenizer, StreamDecoder, Tokenizer


@cache
def tokenizer() -> Tokenizer:
    return ByteLevelTokenizer.train(["naïve 漢字 😀 text\n" * 40], 512)


def streamed(ids: list[int], *, skip_special: bool = True) -> list[str]:
    decoder = StreamDecoder(tokenizer(), skip_special=skip_special)
    return [*(decoder.push(token_id) for token_id in ids), decoder.finish()]


@given(st.text(max_size=60))
@settings(max_examples=50, deadline=None)
def test_the_pieces_of_a_text_join_to_it_and_hold_whole_characters_only(text: str) -> None:
    pieces = streamed(tokenizer().encode(text))
    assert "".join(pieces) == text
    assert pieces[-1] == ""
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)


@given(st.lists(st.integers(0, 511), max_size=40), st.booleans())
@settings(max_examples=50, deadline=None)
def test_any_ids_stream_to_what_they_decode_to(ids: list[int], skip_special: bool) -> None:
    assert "".join(streamed(ids, skip_special=skip_special)) == tokenizer().decode(ids, skip_special=skip_special)


@given(st.text(min_size=1, max_size=8), st.data())
@settings(max_examples=50, deadline=None)
def test_every_chunking_of_the_bytes_gives_the_same_text(text: str, data: st.DataObject) -> None:
    """Byte tokens alone, so that every cut inside a character occurs."""
    of_byte = {tokenizer().token_bytes(i): i for i in range(512) if i not in tokenizer().special_ids}
    ids: list[int] = []
    rest = text.encode()
    while rest:
        lengths = [n for n in range(1, len(rest) + 1) if rest[:n] in of_byte]
        length = data.draw(st.sampled_from(lengths))
        ids.append(of_byte[rest[:length]])
        rest = rest[length:]
    assert "".join(streamed(ids)) == text


def test_half_a_character_at_the_end_becomes_one_replacement_character() -> None:
    ids = [next(i for i in range(512) if tokenizer().token_bytes(i) == bytes([byte])) for byte in "😀".encode()[:3]]
    assert streamed(ids) == ["", "", "", "\ufffd"]
