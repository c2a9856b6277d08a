"""Calls of tools told from what is said: JSON between <tool_call> and </tool_call>, the format of Hermes and Qwen.

A call that begins as models are taught to write it, with its name and then an object of arguments, is given while it is
written. Any other is read when it is complete: a call in another order is one, and what is none stays text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Literal

from fulmen_core.tokenizer.tool_text import CALL_CLOSE, CALL_OPEN
from fulmen_serving.parsing.parts import AnswerPart, SaidDelta, ToolCallDelta
from fulmen_serving.parsing.tag_search import split_at_tag

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)', re.DOTALL)


class ToolCallParser:
    """Splits one answer. White space around calls belongs to the tags.

    What is said after a call begins on a line of its own: run together with what was said before, it could be read as
    something that the guard, which sees the call between them, has not seen.
    """

    def __init__(self) -> None:
        self._state: Literal["said", "head", "arguments", "tail", "gap"] = "said"
        self._held = ""
        self._calls = 0
        self._any_said = False
        self._depth, self._in_string, self._escaped = 0, False, False

    def push(self, text: str) -> Iterator[AnswerPart]:
        """Take the next piece of text."""
        self._held += text
        while (step := self._step()) is not None:
            yield from step

    def finish(self) -> Iterator[AnswerPart]:
        """The text ended, perhaps within a call."""
        rest, self._held = self._held, ""
        if self._state == "said" and rest:
            yield SaidDelta(rest)
        elif self._state == "head":
            yield from self._read(rest, CALL_OPEN + rest)

    def _step(self) -> list[AnswerPart] | None:
        """Go on as far as one state reaches; None if there is nothing to do before more text comes."""
        if self._state == "said":
            return self._say()
        if self._state == "head":
            return self._begin()
        if self._state == "arguments":
            return self._argue()
        if self._state == "tail":
            _, behind = split_at_tag(self._held, CALL_CLOSE)
            if behind is None:
                return None
            self._state, self._held = "gap", behind
        self._held = self._held.lstrip()
        if not self._held:
            return None
        self._state = "said"
        if self._any_said:
            self._held = "\n" + self._held
        return []

    def _say(self) -> list[AnswerPart] | None:
        said, behind = split_at_tag(self._held, CALL_OPEN)
        if behind is None:
            self._held = self._held[len(said) :]
        else:
            said, self._held, self._state = said.rstrip(), behind, "head"
        if not said:
            return None if behind is None else []
        self._any_said = True
        return [SaidDelta(said)]

    def _begin(self) -> list[AnswerPart] | None:
        place, head = self._held.find(CALL_CLOSE), _HEAD.match(self._held)
        end = place + len(CALL_CLOSE)
        if head is not None and (place < 0 or head.end() < end):
            self._state, self._held = "arguments", self._held[head.end() :]
            self._depth, self._in_string, self._escaped = 0, False, False
            return [self._open(_name_of(head[1]))]
        if place < 0:
            return None
        before = self._calls
        parts = list(self._read(self._held[:place], CALL_OPEN + self._held[:end]))
        self._state, self._held = "said" if self._calls == before else "gap", self._held[end:]
        return parts

    def _argue(self) -> list[AnswerPart] | None:
        """Give the arguments up to the end of their object, or of the call if the object never ends."""
        for place, character in enumerate(self._held):
            if self._in_string:
                self._in_string = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._in_string = True
            elif character == "{":
                self._depth += 1
            elif character == "}":
                self._depth -= 1
            if not self._in_string and (self._depth == 0 or character == "<"):
                end = place if character == "<" else place + 1
                arguments, self._held, self._state = self._held[:end], self._held[end:], "tail"
                return [ToolCallDelta(self._calls - 1, arguments=arguments)] if arguments else []
        if not self._held:
            return None
        arguments, self._held = self._held, ""
        return [ToolCallDelta(self._calls - 1, arguments=arguments)]

    def _read(self, body: str, raw: str) -> Iterator[AnswerPart]:
        """A call that is complete, or the text `raw` if `body` is none."""
        try:
            call = json.loads(body)
            name, arguments = call["name"], call.get("arguments", {})
        except (ValueError, TypeError, KeyError, AttributeError):
            name, arguments = None, None
        if not isinstance(name, str) or not isinstance(arguments, dict | str):
            self._any_said = True
            yield SaidDelta(raw)
            return
        yield self._open(name)
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        yield ToolCallDelta(self._calls - 1, arguments=written)

    def _open(self, name: str) -> ToolCallDelta:
        self._calls += 1
        return ToolCallDelta(self._calls - 1, name)


def _name_of(quoted: str) -> str:
    try:
        return str(json.loads(quoted, strict=False))
    except ValueError:  # an escape that JSON has not
        return quoted[1:-1]
