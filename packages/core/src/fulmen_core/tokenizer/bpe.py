"""Fulmen's own tokenizer: a byte-level BPE in Hugging Face's files, lossless; text cannot produce its specials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import atomic_write_json, atomic_write_text, read_json
from fulmen_core.tokenizer.byte_level import byte_alphabet, encode_texts, train_bpe
from fulmen_core.tokenizer.chat import CHATML_TEMPLATE, chatml_pieces, check_messages
from fulmen_core.tokenizer.tokenizer import Messages, Tokenizer, no_answer_to_learn
from fulmen_core.tokenizer.tool_text import plain_conversation
from fulmen_core.tokenizer.vocabulary import ENDOFTEXT, IM_END, IM_START, PAD


class ByteLevelTokenizer(Tokenizer):
    """A tokenizer that Fulmen trained. ``decode(encode(text)) == text`` for every text, and all ids are in use.

    Attributes:
        eos_id: <|endoftext|>, which opens and closes a document.
        im_start_id, im_end_id: the turn markers of ChatML.
        pad_id: <|pad|>.
    """

    def __init__(self, backend: BackendTokenizer, *, where: str = "the tokenizer") -> None:
        #: With this set the library encodes the text of a special token like any other text.
        backend.encode_special_tokens = True
        self._backend = backend
        self.vocab_size: int = backend.get_vocab_size()
        self.chat_template = CHATML_TEMPLATE
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._bytes = _bytes_of_tokens(backend.get_vocab(), frozenset(added), where)
        self.eos_id = self._special(ENDOFTEXT, where)
        self.im_start_id = self._special(IM_START, where)
        self.im_end_id = self._special(IM_END, where)
        self.pad_id = self._special(PAD, where)
        self.stop_ids = (self.im_end_id, self.eos_id)
        self._chat_ids = {IM_START: self.im_start_id, IM_END: self.im_end_id}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> ByteLevelTokenizer:
        """Learn a vocabulary of exactly `vocab_size` tokens; the same texts give the same tokenizer.

        Args:
            texts: documents, read once.
            vocab_size: a multiple of 128 in [384, 100352].

        Raises:
            UserError: the size is not allowed (the nearest valid one is named), no text, or a lone surrogate.
        """
        return cls(train_bpe(texts, vocab_size))

    @classmethod
    def load(cls, directory: Path) -> ByteLevelTokenizer:
        """Read one: see `fulmen_core.tokenizer.load_tokenizer`."""
        path = Path(directory) / "tokenizer.json"
        document = read_json(path, "tokenizer")
        try:
            backend = BackendTokenizer.from_str(json.dumps(document))
        except Exception as error:  # the library raises plain Exception
            raise CorruptArtefact(f"unusable tokenizer ({error})", where=str(path), remedy="train it again") from None
        _check_byte_level_bpe(document, path)
        return cls(backend, where=str(path))

    def save(self, directory: Path) -> None:
        """See `Tokenizer.save`; the ids that end an answer are <|im_end|> and <|endoftext|>."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        atomic_write_text(directory / "tokenizer.json", self._backend.to_str(pretty=True))
        atomic_write_json(
            directory / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": IM_END,
                "pad_token": PAD,
                "chat_template": self.chat_template,
                "clean_up_tokenization_spaces": False,
            },
        )
        atomic_write_json(
            directory / "generation_config.json",
            {"eos_token_id": list(self.stop_ids), "pad_token_id": self.pad_id},
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex of the tokenizer's contents."""
        canonical = json.dumps(json.loads(self._backend.to_str()), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_batch`."""
        return encode_texts(self._backend, texts)

    def encode_prompt(self, text: str) -> list[int]:
        """The mark that opens a document, and the text."""
        return [self.eos_id, *self.encode(text)]

    def token_bytes(self, token_id: int, *, skip_special: bool = True) -> bytes:
        """See `Tokenizer.token_bytes`."""
        if not 0 <= token_id < self.vocab_size:
            raise UserError(f"token id {token_id} is outside the vocabulary of {self.vocab_size} tokens")
        return b"" if skip_special and token_id in self.special_ids else self._bytes[token_id]

    def encode_chat(
        self, messages: Messages, add_generation_prompt: bool = False, tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Encode a conversation as ChatML: the ids of its first messages are a prefix of the ids of the whole.

        Tools and calls are text, see `fulmen_core.tokenizer.tool_text`.
        """
        check_messages(messages)
        ids: list[int] = []
        for piece in chatml_pieces(plain_conversation(messages, tools), add_generation_prompt=add_generation_prompt):
            ids += [self._chat_ids[piece.text]] if piece.special else self.encode(piece.text)
        return ids

    def encode_chat_masked(self, messages: Messages) -> tuple[list[int], list[bool]]:
        """See `Tokenizer.encode_chat_masked`: an assistant's content and its <|im_end|> are learned."""
        check_messages(messages)
        ids: list[int] = []
        trained: list[bool] = []
        for piece in chatml_pieces(messages):
            piece_ids = [self._chat_ids[piece.text]] if piece.special else self.encode(piece.text)
            ids += piece_ids
            trained += [piece.trained] * len(piece_ids)
        if not any(trained):
            raise no_answer_to_learn()
        return ids, trained

    def _special(self, token: str, where: str) -> int:
        token_id = self._backend.token_to_id(token)
        if token_id is None or token_id not in self.special_ids:
            raise CorruptArtefact(f"the special token {token} is missing", where=where, remedy="train it again")
        return int(token_id)


def _check_byte_level_bpe(document: Mapping[str, Any], path: Path) -> None:
    """Refuse what this class cannot decode losslessly, and merges that would let text produce a special token."""
    model, decoder = document.get("model") or {}, document.get("decoder") or {}
    if model.get("type") != "BPE" or decoder.get("type") != "ByteLevel" or document.get("normalizer") is not None:
        raise CorruptArtefact(
            "not a byte-level BPE tokenizer without normalisation", where=str(path), remedy="use one trained by fulmen"
        )
    specials = {token["content"] for token in document.get("added_tokens", ())}
    for merge in model.get("merges", ()):
        merged = merge.replace(" ", "") if isinstance(merge, str) else "".join(merge)
        if merged in specials:
            raise CorruptArtefact(
                f"a merge produces the special token {merged}", where=str(path), remedy="train the tokenizer again"
            )


def _bytes_of_tokens(vocab: Mapping[str, int], added: frozenset[int], where: str) -> tuple[bytes, ...]:
    alphabet = byte_alphabet()
    table: dict[int, bytes] = {}
    for token, token_id in vocab.items():
        if token_id in added:
            table[token_id] = token.encode("utf-8")
        elif all(character in alphabet for character in token):
            table[token_id] = bytes(alphabet[character] for character in token)
        else:
            raise CorruptArtefact(f"token {token!r} is not made of bytes", where=where, remedy="train it again")
    if sorted(table) != list(range(len(vocab))):
        raise CorruptArtefact("the token ids have gaps", where=where, remedy="train it again")
    if not set(alphabet) <= set(vocab):
        raise CorruptArtefact("not every byte has a token", where=where, remedy="train it again")
    return tuple(table[token_id] for token_id in range(len(vocab)))
