"""Reasoning told from the answer: what is between <think> and </think> at the beginning.

Source: the format of DeepSeek-R1 and Qwen3. Some templates open the reasoning in the prompt; then the answer starts
inside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from fulmen_core.tokenizer import Tokenizer
from fulmen_core.tokenizer.tool_text import THINK_CLOSE, THINK_OPEN
from fulmen_serving.parsing.parts import AnswerPart, ReasoningDelta, SaidDelta
from fulmen_serving.parsing.tag_search import split_at_tag


class ReasoningParser:
    """Splits one answer. White space around the reasoning belongs to the tags.

    Args:
        inside: whether the answer starts inside its reasoning.
    """

    def __init__(self, *, inside: bool) -> None:
        self._state: Literal["opening", "margin", "inside", "gap", "behind"] = "margin" if inside else "opening"
        self._held = ""

    def push(self, text: str) -> Iterator[AnswerPart]:
        """Take the next piece of text."""
        self._held += text
        if self._state == "opening":
            begun = self._held.lstrip()
            if begun.startswith(THINK_OPEN):
                self._state, self._held = "margin", begun.removeprefix(THINK_OPEN)
            elif not THINK_OPEN.startswith(begun):
                self._state = "behind"
        if self._state == "margin":  # white space goes, so that an empty piece of it is told from the first word
            self._held = self._held.lstrip()
            if self._held:
                self._state = "inside"
        if self._state == "inside":
            thought, behind = split_at_tag(self._held, THINK_CLOSE)
            if behind is None:
                self._held = self._held[len(thought) :]
            else:
                thought, self._held, self._state = thought.rstrip(), behind, "gap"
            if thought:
                yield ReasoningDelta(thought)
        if self._state == "gap":
            self._held = self._held.lstrip()
            if self._held:
                self._state = "behind"
        if self._state == "behind" and self._held:
            yield SaidDelta(self._held)
            self._held = ""

    def finish(self) -> Iterator[AnswerPart]:
        """The text ended: what was held back turns out to be what it seemed."""
        rest, self._held = self._held, ""
        if self._state == "opening" and rest:
            yield SaidDelta(rest)
        elif self._state == "inside" and rest.rstrip():
            yield ReasoningDelta(rest.rstrip())


def opens_reasoning(prompt: str) -> bool:
    """Whether a prompt's end leaves the answer inside its reasoning."""
    return prompt.rstrip().endswith(THINK_OPEN)


def knows_reasoning(tokenizer: Tokenizer) -> bool:
    """Whether the tag that opens reasoning is in the model's template, or one token of its vocabulary."""
    return THINK_OPEN in tokenizer.chat_template or len(tokenizer.encode(THINK_OPEN)) == 1
