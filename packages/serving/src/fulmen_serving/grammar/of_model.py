"""Grammars over the tokenizer of a model directory, for whoever has the directory alone: a model's own process."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.model_directory import ModelDirectory
from fulmen_core.token_constraint import OpenConstraint, TokenConstraint

if TYPE_CHECKING:
    from fulmen_serving.grammar.compiler import GrammarCompiler


def grammars_of(model: Path) -> OpenConstraint:
    """What opens constraints of grammars. Tokenizer and compiler are loaded when the first one comes."""

    @cache
    def compiler() -> GrammarCompiler:
        from fulmen_core.tokenizer import load_tokenizer
        from fulmen_serving.grammar.compiler import GrammarCompiler

        tokenizer = load_tokenizer(model)
        return GrammarCompiler(tokenizer, ModelDirectory.inspect(model).stop_ids() | frozenset(tokenizer.stop_ids))

    def opened(grammar: str) -> TokenConstraint:
        return compiler().open(grammar)

    return opened
