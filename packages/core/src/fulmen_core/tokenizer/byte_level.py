"""The byte-level alphabet of GPT-2, and the training of a BPE model over it.

Every byte is a token, so any text has an encoding, nothing is normalised, and no token is unknown. The pre-tokeniser
decides what a token can never cross:

- a digit stands alone (report section 3.1: "numbers split into single digits");
- a word may take one preceding character that is no digit and no line break (" name", "_name", "(name");
- punctuation may take the line break and the indentation that follow it (":\\n        "), else a line break takes the
  white space around it, so that Python's indentation costs one token. On the standard library at vocabulary 4,096 this
  encodes 3.93 bytes per token where the pattern of GPT-2 gives 3.60 and that of cl100k 3.68.

A special token's text never fits inside one pre-token (it alternates punctuation and letters), so no merge can produce
one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as BackendTokenizer

from fulmen_core.errors import UserError
from fulmen_core.tokenizer.vocabulary import SPECIAL_TOKENS, check_vocab_size, filler_token

PATTERN = (
    r"\p{N}"
    r"|[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+"
    r"| ?[^\s\p{L}\p{M}\p{N}]+(?:\s*[\r\n]\s*)?"
    r"|\s*[\r\n]\s*"
    r"|\s+(?!\S)"
    r"|\s+"
)


def byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in tokenizer.json -> the byte (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return alphabet


def check_encodable(text: str, where: str = "the text") -> None:
    """Refuse a lone surrogate, which is no Unicode text and has no UTF-8 bytes.

    Raises:
        UserError: with the surrogate and its offset in characters.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start}",
            where=where,
            remedy="give valid Unicode text",
        ) from None


def encode_texts(backend: BackendTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, encoded on all cores, with nothing added before or behind.

    Raises:
        UserError: a text has a lone surrogate; names which.
    """
    try:
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    except TypeError:
        for index, text in enumerate(texts):
            check_encodable(text, f"text {index}" if len(texts) > 1 else "the text")
        raise


def _checked(texts: Iterable[str], counts: dict[str, int]) -> Iterator[str]:
    for index, text in enumerate(texts):
        check_encodable(text, f"training text {index}")
        counts["characters"] += len(text)
        yield text


def train_bpe(texts: Iterable[str], vocab_size: int) -> BackendTokenizer:
    """Train a byte-level BPE model of exactly `vocab_size` tokens; a pure function of the texts and the size.

    Ids: 0..15 the special tokens, then the 256 bytes, then the merges by rank; a corpus too small for that many merges
    leaves the rest to filler tokens, which no text encodes to.

    Raises:
        UserError: the size is not allowed, or there is no text.
    """
    check_vocab_size(vocab_size)
    backend = BackendTokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(byte_alphabet()),
        min_frequency=2,
    )
    counts = {"characters": 0}
    backend.train_from_iterator(_checked(texts, counts), trainer)
    if not counts["characters"]:
        raise UserError(
            "the corpus is empty", where="tokenizer training", remedy="give at least one document with text"
        )
    missing = vocab_size - backend.get_vocab_size()
    backend.add_special_tokens(
        [AddedToken(filler_token(index), normalized=False, special=True) for index in range(missing)]
    )
    return backend
