"""Which model to load, how, and with which plugins: plain data, so that another process can do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen_core.backend import Dtype
from fulmen_core.model_directory import ModelDirectory, choose_backend
from fulmen_core.registry import Discovery, Registry
from fulmen_core.runner import EngineLimits, Runner
from fulmen_core.token_constraint import OpenConstraint

if TYPE_CHECKING:
    from fulmen_serving.grammar.compiler import GrammarCompiler


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model to be loaded.

    Attributes:
        model: a checkpoint or an exported artefact.
        backend: a backend's name, or "auto".
        limits: what the engine will ask for at most.
        dtype: of weights and products.
        choices: further arguments of `Backend.load_runner`.
        plugins: how the registry was discovered.
    """

    model: Path
    backend: str
    limits: EngineLimits
    dtype: Dtype = "float32"
    choices: Mapping[str, Any] = field(default_factory=dict)
    plugins: Discovery = field(default_factory=Discovery)

    def load(self, registry: Registry) -> tuple[str, Runner]:
        """Return the name of the backend that serves the model, and a runner of it.

        Raises:
            UserError: there is no such model, or no backend that serves it so.
        """
        backend = choose_backend(registry, self.backend, ModelDirectory.inspect(self.model).format)
        return backend.name, backend.load_runner(self.model, self.limits, self.dtype, **self.choices)

    def open_constraint(self) -> OpenConstraint:
        """What reads the grammars of requests. Tokenizer and compiler are loaded when the first one comes."""

        @cache
        def compiler() -> GrammarCompiler:
            from fulmen_core.tokenizer import load_tokenizer
            from fulmen_serving.grammar.compiler import GrammarCompiler

            tokenizer = load_tokenizer(self.model)
            return GrammarCompiler(
                tokenizer, ModelDirectory.inspect(self.model).stop_ids() | frozenset(tokenizer.stop_ids)
            )

        return lambda grammar: compiler().open(grammar)
