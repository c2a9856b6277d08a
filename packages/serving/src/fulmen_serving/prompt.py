"""What a request gives the model to go on from, in the three forms clients send: a conversation, a text, token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from fulmen_core.errors import UserError
from fulmen_core.tokenizer import Tokenizer
from fulmen_core.tokenizer.tool_text import plain_text, signatures_text
from fulmen_serving.refusal import Refusal

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
    """A conversation, each message with "role" and "content"; the model answers as the assistant.

    Attributes:
        conversation: an assistant's message may have "tool_calls" and "reasoning_content", a tool's "tool_call_id".
        tools: the functions that the model may call, as in OpenAI's `tools`. The guard judges their texts too.
    """

    conversation: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    field: ClassVar[str] = "messages"
    id_prefix: ClassVar[str] = "chatcmpl-"

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """See `Prompt.encode`."""
        return tokenizer.encode_chat(self.conversation, add_generation_prompt=True, tools=self.tools)

    def messages(self, tokenizer: Tokenizer) -> tuple[Message, ...]:  # noqa: ARG002 - token ids need it
        """See `Prompt.messages`. Calls and reasoning are judged as the text that they are to the model; of functions,
        what the caller says of them, not our own words on how to call one.
        """
        said = tuple({"role": message["role"], "content": plain_text(message)} for message in self.conversation)
        return ({"role": "system", "content": signatures_text(self.tools)}, *said) if self.tools else said

    def rewritten(self, messages: Sequence[Message]) -> Prompt:
        """See `Prompt.rewritten`. A message that is changed keeps its text alone.

        Raises:
            Refusal: 400, the guard would change what a function is for.
        """
        if self.tools:
            told, *messages = messages
            if told["content"] != signatures_text(self.tools):
                raise Refusal(
                    400,
                    "The guard found something in 'tools' that it would take out; describe the functions without it",
                    code="content_filter",
                    param="tools",
                )
        conversation = [
            given if judged["content"] == plain_text(given) else _changed(given, judged)
            for given, judged in zip(self.conversation, messages, strict=True)
        ]
        return replace(self, conversation=tuple(conversation))


def _changed(given: Mapping[str, Any], judged: Message) -> Mapping[str, Any]:
    kept = {key: value for key, value in given.items() if key not in ("tool_calls", "reasoning_content")}
    return {**kept, "content": judged["content"]}


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
