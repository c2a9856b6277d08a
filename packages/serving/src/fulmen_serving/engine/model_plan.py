"""Which model to load, how, and with which plugins: plain data, so that another process can do it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fulmen_core.backend import Backend, Dtype
from fulmen_core.backend_options import refuse_unknown_options
from fulmen_core.errors import CapabilityError, UserError
from fulmen_core.model_directory import ModelDirectory, choose_backend
from fulmen_core.registry import Discovery, Registry
from fulmen_core.runner import EngineLimits, Runner
from fulmen_core.token_constraint import OpenConstraint
from fulmen_serving.engine.core import EngineCore
from fulmen_serving.engine.speculation import DraftModelProposer, NGramProposer, Proposer
from fulmen_serving.grammar.of_model import grammars_of


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model to be loaded.

    Attributes:
        model: a checkpoint or an exported artefact.
        backend: a backend's name, or "auto".
        limits: what the engine will ask for at most.
        dtype: of weights and products; None: see `ModelDirectory.dtype_on`.
        choices: further arguments of `Backend.load_runner`.
        options: of this backend alone, see `fulmen_core.backend_options`.
        plugins: how the registry was discovered.
        speculate: what guesses tokens: "ngram", or the directory of a smaller model over the same vocabulary, or "".
        batch_invariant: answers shall not depend on what else runs, to the last bit.
    """

    model: Path
    backend: str
    limits: EngineLimits
    dtype: Dtype | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    plugins: Discovery = field(default_factory=Discovery)
    speculate: str = ""
    batch_invariant: bool = False

    def open(self, registry: Registry, open_constraint: OpenConstraint | None = None) -> tuple[Backend, EngineCore]:
        """Return the backend that serves the model, and a core over its runner.

        Args:
            registry: where backends come from.
            open_constraint: reads the grammars of requests; None makes one over the model's own tokenizer.

        Raises:
            UserError: there is no such model, no backend that serves it so, or what is asked for cannot be combined.
        """
        backend, runner = self.load(registry)
        with contextlib.ExitStack() as undo:
            undo.callback(runner.close)
            constraints = open_constraint or grammars_of(self.model)
            core = EngineCore(runner, constraints, self._proposer(registry), batch_invariant=self.batch_invariant)
            undo.pop_all()
        return backend, core

    def _proposer(self, registry: Registry) -> Proposer | None:
        if self.speculate in ("", "ngram"):
            return NGramProposer() if self.speculate else None
        draft = Path(self.speculate)
        sizes = [ModelDirectory.inspect(model).vocab_size for model in (self.model, draft)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"the draft model has {sizes[1]} tokens and the model {sizes[0]}",
                where=str(draft),
                remedy="give a model of the same tokenizer",
            )
        limits = replace(self.limits, cached_sequences=0, kv_tokens=0, adapters=0)
        return DraftModelProposer(replace(self, model=draft, limits=limits, choices={}, options={}).load(registry)[1])

    def load(self, registry: Registry) -> tuple[Backend, Runner]:
        """Return the backend that serves the model, and a runner of it.

        Raises:
            UserError: there is no such model, or no backend that serves it so.
        """
        directory = ModelDirectory.inspect(self.model)
        backend = choose_backend(registry, self.backend, directory.format)
        if self.limits.adapters and not backend.capabilities().adapters:
            raise CapabilityError(
                f"the backend {backend.name} serves no adapters", remedy="leave --adapters out, or use --backend cpu"
            )
        refuse_unknown_options(backend, self.options)
        dtype = self.dtype or directory.dtype_on(backend)
        choices = {**self.choices, **self.options}
        return backend, backend.load_runner(self.model, self.limits, dtype, **choices)
