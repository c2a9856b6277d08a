"""From the text of a grammar to constraints over the tokenizer's vocabulary, with llguidance.

llguidance is an optional extra and is imported when the first request needs it.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections import OrderedDict
from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from fulmen_core.errors import UserError
from fulmen_core.token_constraint import TokenConstraint
from fulmen_core.tokenizer import Tokenizer
from fulmen_serving.grammar.constraint import GrammarConstraint
from fulmen_serving.grammar.shape import GrammarPart

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

#: Compiled grammars kept: a service sends the same few again and again.
_KEPT = 64


class GrammarError(UserError):
    """A grammar that is none. `place` leads to the fault inside a JSON schema, e.g. ``".properties.age"``."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


class GrammarCompiler:
    """Compiles grammars and keeps the last ones. Thread-safe.

    Args:
        tokenizer: the model's.
        stop_ids: the tokens that end an answer: allowed where a grammar is complete.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: Collection[int]) -> None:
        self._tokenizer, self._stop_ids = tokenizer, sorted(stop_ids)
        self._lock = threading.Lock()
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    @staticmethod
    def available() -> bool:
        """Whether llguidance is installed."""
        return importlib.util.find_spec("llguidance") is not None

    def check(self, part: GrammarPart) -> None:
        """Refuse a grammar that cannot be compiled.

        Raises:
            GrammarError: what is wrong, and where.
        """
        fault = self.fault(grammar_text([part]))
        if not fault:
            return
        place = ""
        if isinstance(part.get("json_schema"), dict):
            schema = part["json_schema"]
            place = _place_of(schema, lambda inner: self.fault(grammar_text([{"json_schema": inner}])), fault)
        raise GrammarError(fault, place)

    def open(self, grammar: str) -> TokenConstraint:
        """A fresh constraint of what `grammar_text` makes. See `fulmen_core.token_constraint.OpenConstraint`."""
        with self._lock:
            matcher = self._compiled.pop(grammar, None) or self._matcher(grammar)
            self._compiled[grammar] = matcher
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
            return GrammarConstraint(matcher.deep_copy())

    def _matcher(self, grammar: str) -> LLMatcher:
        from llguidance import LLMatcher

        return LLMatcher(self._vocabulary, grammar, log_level=0)

    def fault(self, grammar: str) -> str:
        """Why the text of a grammar cannot be compiled, in one line; empty if it can."""
        from llguidance import LLMatcher

        failed, told = LLMatcher.validate_grammar_with_warnings(grammar, self._vocabulary)
        return " ".join(told[0].split()) if failed else ""

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        asked = cast("TokenizerWrapper", _Vocabulary(self._tokenizer, self._stop_ids))
        return LLTokenizer(asked, eos_token=self._stop_ids)


def grammar_text(parts: list[GrammarPart]) -> str:
    """The text of a grammar: the first part is what the answer must be, and may call the others by ``@name``."""
    return json.dumps({"grammars": parts}, ensure_ascii=False)


class _Vocabulary:
    """What `LLTokenizer` asks of a tokenizer (its `TokenizerWrapper`)."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, stop_ids: list[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = stop_ids[0] if stop_ids else tokenizer.eos_id
        self.tokens = [tokenizer.token_bytes(token, skip_special=False) for token in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(tokenizer.special_ids)

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)


def _place_of(schema: dict[str, Any], fault_of: Any, fault: str) -> str:
    """The path to the innermost part of `schema` that has the same fault alone."""
    shared = {key: schema[key] for key in ("$defs", "definitions", "x-guidance") if key in schema}
    place, here = "", schema
    while True:
        for step, inner in _parts_of(here):
            if isinstance(inner, dict) and fault_of(shared | inner if step not in shared else inner) == fault:
                place, here = f"{place}.{step}", inner
                break
        else:
            return place


def _parts_of(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    parts: list[tuple[str, Any]] = []
    shared_first = sorted(schema.items(), key=lambda item: item[0] not in ("$defs", "definitions"))
    for key, value in shared_first:
        if key in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, dict):
            parts += [(f"{key}.{name}", inner) for name, inner in value.items()]
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            parts += [(f"{key}[{index}]", inner) for index, inner in enumerate(value)]
        elif key in ("items", "additionalProperties", "not", "if", "then", "else", "contains"):
            parts.append((key, value))
    return parts
