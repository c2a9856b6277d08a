"""Token ids to text while they arrive, without ever showing half a character."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fulmen_core.tokenizer.tokenizer import Tokenizer


class StreamDecoder:
    """Decodes one sequence id by id. What `push` and `finish` return, joined, equals `Tokenizer.decode` of the ids.

    Attributes:
        given_up: characters at the start of what `push` returned last that stand for earlier ids, whose character this
            one does not go on with.

    Args:
        tokenizer: whose ids arrive.
        skip_special: leave special tokens out of the text, as `decode` does.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._strips = tokenizer.strips_first_space
        self.given_up = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Take the next id; return the characters that it completes, perhaps none.

        Raises:
            UserError: the id is outside the vocabulary.
        """
        data = self._tokenizer.token_bytes(token_id, skip_special=self._skip_special)
        if self._strips and data:
            data, self._strips = data.removeprefix(b" "), False
        begins = bool(data) and not 0x80 <= data[0] < 0xC0  # a character, rather than going on with one
        before = self._decoder.decode(b"", final=True) if begins else ""
        self.given_up = len(before)
        return before + self._decoder.decode(data)

    @property
    def incomplete(self) -> bool:
        """Whether the ids so far end within a character."""
        return bool(self._decoder.getstate()[0])

    def finish(self) -> str:
        """The sequence ended: return U+FFFD for an incomplete last character, else nothing."""
        return self._decoder.decode(b"", final=True)
