"""ChatML, the chat format of the Yi line: the template that Hugging Face tools read, and the same rendering in pieces.

Rendering in pieces keeps user text apart from markup: only a piece marked as special becomes a special token, so
nothing that a message contains can close its turn (arXiv 2403.04652 section 3.1 for the format).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fulmen_core.errors import UserError
from fulmen_core.tokenizer.vocabulary import IM_END, IM_START

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")

#: The template as stored in tokenizer_config.json.
CHATML_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- endif %}"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a rendered conversation. `special` text is markup, everything else is encoded as ordinary text."""

    text: str
    special: bool = False
    trained: bool = False


def check_messages(messages: Sequence[Mapping[str, object]]) -> None:
    """Refuse a conversation that the template cannot render.

    Raises:
        UserError: no message, a role that is not in `ROLES`, or content that is not text; names the message.
    """
    if not messages:
        raise UserError("the conversation has no message", remedy="give at least one message with a role and content")
    for index, message in enumerate(messages):
        if message.get("role") not in ROLES:
            raise UserError(
                f"unknown role {message.get('role')!r}",
                where=f"message {index}",
                remedy=f"use one of {', '.join(ROLES)}",
            )
        if not isinstance(message.get("content"), str):
            raise UserError(
                f"content is {type(message.get('content')).__name__}", where=f"message {index}", remedy="give a string"
            )


def chatml_pieces(messages: Sequence[Mapping[str, object]], *, add_generation_prompt: bool = False) -> Iterator[Piece]:
    """Yield the pieces whose texts, joined, equal what `CHATML_TEMPLATE` renders.

    An assistant's content and its closing <|im_end|> are marked as trained: a model that never learns the end of its
    turn never stops.

    Args:
        messages: each with "role" and "content"; check them first with `check_messages`.
        add_generation_prompt: end with the opening of an assistant turn.
    """
    for message in messages:
        role, content = str(message["role"]), str(message["content"])
        trained = role == "assistant"
        yield Piece(IM_START, special=True)
        yield Piece(f"{role}\n")
        yield Piece(content, trained=trained)
        yield Piece(IM_END, special=True, trained=trained)
        yield Piece("\n")
    if add_generation_prompt:
        yield Piece(IM_START, special=True)
        yield Piece("assistant\n")
