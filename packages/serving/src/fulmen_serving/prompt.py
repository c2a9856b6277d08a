"""What a request gives the model to go on from, in the three forms clients send: a conversation, a text, token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from fulmen_core.errors import UserError
from fulmen_core.tokenizer import Tokenizer

Message = Mapping[str, str]


class Prompt(Protocol):
    """A prompt that can be encoded, judged, and replaced by what the guard made of it.

    Attributes:
        field: the request's field that holds it, for refusals.
        id_prefix: how ids of requests with such a prompt start.
    """

    field: ClassVar[str]
    id_prefix: ClassVar[str]

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """The ids that the model sees.

        Raises:
            UserError: it cannot be encoded, or there is nothing to go on from.
        """
        ...

    def messages(self, tokenizer: Tokenizer) -> tuple[Message, ...]:
        """The conversation that the guard judges."""
        ...

    def rewritten(self, messages: Sequence[Message]) -> Prompt:
        """The prompt with the guard's `messages` in place of its own."""
        ...


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation, each message with "role" and "content"; the model answers as the assistant."""

    conversation: tuple[Message, ...]
    field: ClassVar[str] = "messages"
    id_prefix: ClassVar[str] = "chatcmpl-"

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """See `Prompt.encode`."""
        return tokenizer.encode_chat(self.conversation, add_generation_prompt=True)

    def messages(self, tokenizer: Tokenizer) -> tuple[Message, ...]:  # noqa: ARG002 - token ids need it
        """See `Prompt.messages`."""
        return self.conversation

    def rewritten(self, messages: Sequence[Message]) -> Prompt:
        """See `Prompt.rewritten`."""
        return replace(self, conversation=tuple(messages))


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """The beginning of a document, which the model continues. The guard judges it as what a user said."""

    text: str
    field: ClassVar[str] = "prompt"
    id_prefix: ClassVar[str] = "cmpl-"

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """See `Prompt.encode`."""
        ids = tokenizer.encode_prompt(self.text)
        if not ids:
            raise UserError("the prompt is empty, and this model's documents have no opening mark to go on from")
        return ids

    def messages(self, tokenizer: Tokenizer) -> tuple[Message, ...]:  # noqa: ARG002 - token ids need it
        """See `Prompt.messages`."""
        return ({"role": "user", "content": self.text},)

    def rewritten(self, messages: Sequence[Message]) -> Prompt:
        """See `Prompt.rewritten`."""
        return TextPrompt("\n".join(message["content"] for message in messages))


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids as they are. The guard judges their text, special tokens included; a rewriting makes a text of them."""

    ids: tuple[int, ...]
    field: ClassVar[str] = "prompt"
    id_prefix: ClassVar[str] = "cmpl-"

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """See `Prompt.encode`."""
        if not self.ids:
            raise UserError("the prompt has no token to go on from")
        outside = next((token for token in self.ids if not 0 <= token < tokenizer.vocab_size), None)
        if outside is not None:
            raise UserError(f"token id {outside} is outside the vocabulary of {tokenizer.vocab_size} tokens")
        return list(self.ids)

    def messages(self, tokenizer: Tokenizer) -> tuple[Message, ...]:
        """See `Prompt.messages`."""
        return ({"role": "user", "content": tokenizer.decode(self.ids, skip_special=False)},)

    def rewritten(self, messages: Sequence[Message]) -> Prompt:
        """See `Prompt.rewritten`."""
        return TextPrompt("\n".join(message["content"] for message in messages))
