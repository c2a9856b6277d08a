"""What every tokenizer does, whether Fulmen trained it or an open checkpoint brought it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError

Messages = Sequence[Mapping[str, object]]


class Tokenizer(ABC):
    """Encodes and decodes text and conversations. `ByteLevelTokenizer.train` and `load_tokenizer` make one.

    Text never becomes a special token: those come from a chat template alone.

    Attributes:
        vocab_size: ids 0..vocab_size-1 are the tokenizer's. A model may have spare rows beyond them.
        eos_id: what closes a document.
        pad_id: what fills rows; the same as `eos_id` where a model has none of its own.
        special_ids: every id that `encode` never returns.
        chat_template: the Jinja template of conversations; empty if the model knows none.
        strips_first_space: whether decoding drops a space at the very start, which encoding has put there.
        models_have_spare_rows: whether a model may have more rows than there are ids: open checkpoints round up.
        stop_ids: the ids that end an answer.
    """

    vocab_size: int
    eos_id: int
    pad_id: int
    special_ids: frozenset[int]
    chat_template: str
    strips_first_space: bool = False
    models_have_spare_rows: bool = False
    stop_ids: tuple[int, ...]

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and generation_config.json, each atomically, into `directory`.

        The directory is made if need be. The files are Hugging Face's.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 hex of the tokenizer's contents: shards of another fingerprint do not fit."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode each text on all cores; equal to `encode` one by one.

        Raises:
            UserError: a text has a lone surrogate; names which.
        """

    @abstractmethod
    def encode_prompt(self, text: str) -> list[int]:
        """Encode the beginning of a document: what the model saw before a text, if anything, and the text.

        Raises:
            UserError: the text has a lone surrogate.
        """

    @abstractmethod
    def token_bytes(self, token_id: int, *, skip_special: bool = True) -> bytes:
        """The bytes of one token; none for a special token if `skip_special`.

        Raises:
            UserError: the id is outside the vocabulary.
        """

    @abstractmethod
    def encode_chat(
        self, messages: Messages, add_generation_prompt: bool = False, tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Encode a conversation; special tokens come from the template alone, never from a message.

        Args:
            messages: each with "role" and "content"; an assistant's may have "reasoning_content" and OpenAI's
                "tool_calls", a tool's has "tool_call_id".
            add_generation_prompt: end with the opening of an answer.
            tools: the functions that the model may call, as in OpenAI's `tools`.

        Raises:
            UserError: no message, an unknown role, content that is no text, a lone surrogate, or no template.
        """

    @abstractmethod
    def encode_chat_masked(self, messages: Messages) -> tuple[list[int], list[bool]]:
        """Encode a conversation for training.

        Returns:
            The ids of `encode_chat`, and for each whether it is to be learned: an assistant's content and what ends its
            turn.

        Raises:
            UserError: as `encode_chat`, and if no token would be learned.
        """

    def check_model_vocab(self, vocab_size: int, where: str) -> None:
        """Refuse a model whose embedding cannot be this tokenizer's.

        Raises:
            UserError: naming both sizes.
        """
        if vocab_size < self.vocab_size or (vocab_size > self.vocab_size and not self.models_have_spare_rows):
            raise UserError(
                f"the tokenizer has {self.vocab_size} tokens but the model has a vocabulary of {vocab_size}",
                where=where,
                remedy="use the tokenizer that the model was trained with",
            )

    def encode(self, text: str) -> list[int]:
        """Encode text, whatever it contains, without any special token.

        Raises:
            UserError: the text has a lone surrogate.
        """
        return self.encode_batch([text])[0]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of `ids`; invalid UTF-8 becomes U+FFFD.

        Args:
            ids: token ids.
            skip_special: leave special tokens out.

        Raises:
            UserError: an id is outside the vocabulary.
        """
        joined = b"".join(self.token_bytes(token_id, skip_special=skip_special) for token_id in ids)
        if self.strips_first_space:
            joined = joined.removeprefix(b" ")
        return joined.decode("utf-8", "replace")


def no_answer_to_learn() -> UserError:
    """The error for a conversation in which no assistant speaks."""
    return UserError("the conversation has no assistant message to learn", remedy="add one or leave it out")
