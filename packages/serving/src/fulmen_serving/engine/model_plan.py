"""Which model to load, how, and with which plugins: plain data, so that another process can do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fulmen_core.backend import Dtype
from fulmen_core.model_directory import ModelDirectory, choose_backend
from fulmen_core.registry import Discovery, Registry
from fulmen_core.runner import EngineLimits, Runner


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
