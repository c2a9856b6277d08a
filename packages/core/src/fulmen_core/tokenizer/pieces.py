"""The bytes behind the tokens of a `tokenizer.json`, told from how its decoder spells them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fulmen_core.errors import UserError
from fulmen_core.tokenizer.byte_level import byte_alphabet

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "▁"

Document = Mapping[str, Any]


def bytes_of_tokens(document: Document, where: str) -> dict[int, bytes]:
    """The bytes of every token by id. Added tokens stand for their own text.

    Raises:
        UserError: the decoder is neither byte-level nor SentencePiece's.
    """
    vocab: Mapping[str, int] = document["model"]["vocab"]
    kinds = {decoder.get("type") for decoder in decoders_of(document)}
    if "ByteLevel" in kinds:
        table = _byte_level(vocab)
    elif kinds & {"ByteFallback", "Metaspace"}:
        table = {token_id: _sentence_piece(token) for token, token_id in vocab.items()}
    else:
        shown = ", ".join(sorted(str(kind) for kind in kinds)) or "none"
        raise UserError(
            f"the tokenizer's decoder ({shown}) is not supported",
            where=where,
            remedy="byte-level and SentencePiece BPE are",
        )
    table.update({token["id"]: token["content"].encode() for token in document.get("added_tokens") or ()})
    return table


def strips_first_space(document: Document) -> bool:
    """Whether the decoder drops the space that encoding puts in front of a text."""
    for decoder in decoders_of(document):
        if decoder.get("type") == "Strip" and decoder.get("content") == " " and decoder.get("start", 0) > 0:
            return True
        if decoder.get("type") == "Metaspace":
            return bool(decoder.get("prepend_scheme", "always") != "never" and decoder.get("add_prefix_space", True))
    return False


def decoders_of(document: Document) -> Iterator[Document]:
    """The decoders, a sequence taken apart."""
    decoder = document.get("decoder") or {}
    yield from decoder.get("decoders", ()) if decoder.get("type") == "Sequence" else (decoder,)


def _byte_level(vocab: Mapping[str, int]) -> dict[int, bytes]:
    alphabet = byte_alphabet()
    table = {}
    for token, token_id in vocab.items():
        spelled = all(character in alphabet for character in token)
        table[token_id] = bytes(alphabet[character] for character in token) if spelled else token.encode()
    return table


def _sentence_piece(token: str) -> bytes:
    if match := _BYTE.fullmatch(token):
        return bytes.fromhex(match[1])
    return token.replace(_SPACE, " ").encode()
