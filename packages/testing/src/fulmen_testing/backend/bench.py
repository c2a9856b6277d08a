"""The bench a backend is tried on: models in the format that it serves, and runners over them, each made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from fulmen_core.backend import Backend, Capabilities, Dtype, Quantization
from fulmen_core.errors import CapabilityError, PluginError
from fulmen_core.model.config import ModelConfig
from fulmen_core.runner import EngineLimits, Runner
from fulmen_testing.claims import unavailable
from fulmen_testing.models import CONTEXT, DENSE, EXPERTS_LAST, LIGHTNING, random_config, save_random_model
from fulmen_testing.player import Player
from fulmen_testing.reference import ROUTING_TIE, Reference
from fulmen_testing.subject import Subject

#: Every dtype there is, the most precise first.
DTYPES: tuple[Dtype, ...] = ("float32", "float16", "bfloat16")
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)

#: How far a result may lie from float64: root mean square of the difference over that of the logits, of one token.
#: Some ten times what the reference model itself shows in that dtype; what is claimed of fewer bits is judged closer.
TOLERANCE: dict[str, float] = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.12, "int8": 0.12}
#: The share of results that must keep it: rounding that is amplified spoils a token now and then.
WITHIN = 0.95
#: Router scores that lie closer than this, in their standard deviations, are a toss in fewer bits than 32.
COARSE_TIE = 0.15


@dataclass(frozen=True)
class Model:
    """A model as the backend takes it: its checkpoint, and the folder to serve, the same or exported from it."""

    label: str  # says how to make it again
    config: ModelConfig
    checkpoint: Path
    served: Path

    @cached_property
    def _references(self) -> dict[float, Reference]:
        return {}

    def reference(self, tie: float = ROUTING_TIE) -> Reference:
        """The checkpoint in float64."""
        if tie not in self._references:
            self._references[tie] = Reference(self.checkpoint, tie)
        return self._references[tie]


@dataclass
class Bench:
    """A backend and what it is given. Skips a claim whose precondition the backend does not declare."""

    subject: Subject
    folder: Path
    seed: int
    backend: Backend
    chosen: str = ""  # of its formats; "": a checkpoint, else the first
    _models: dict[str, Model | CapabilityError] = field(default_factory=dict)

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the backend says it can do."""
        return self.backend.capabilities()

    @property
    def format(self) -> str:
        """The format it is tried with."""
        formats = self.capabilities.formats
        return self.chosen or ("checkpoint" if "checkpoint" in formats else formats[0])

    @property
    def dtype(self) -> Dtype:
        """The most precise that it serves in."""
        return min(self.capabilities.serve_dtypes, key=DTYPES.index)

    @property
    def plans(self) -> int:
        """How many random plans it is tried on: an export takes seconds."""
        return 4 if self.format == "checkpoint" else 2

    def generator(self, salt: int = 0) -> np.random.Generator:
        """Random numbers of this run; `salt` tells claims apart."""
        return np.random.default_rng([self.seed, salt])

    # -- models --------------------------------------------------------------------------------------------------------

    def lightning(self) -> Model:
        """Yi-Lightning's plan at toy size."""
        return self.model("lightning", LIGHTNING)

    def dense(self, dtype: Dtype | None = None, quantize: Quantization | None = None) -> Model:
        """The same without experts."""
        return self.model("dense", DENSE, dtype, quantize)

    def experts(self, dtype: Dtype | None = None, quantize: Quantization | None = None) -> Model:
        """The same with experts in the last layer alone."""
        return self.model("experts", EXPERTS_LAST, dtype, quantize)

    def random_plan(self, number: int) -> Model:
        """One of the plans that were drawn for this run."""
        return self.model(f"plan {number}", random_config(self.generator(1000 + number)))

    def model(
        self, name: str, config: ModelConfig, dtype: Dtype | None = None, quantize: Quantization | None = None
    ) -> Model:
        """Make a model of this config, or return the one that was made before under this name, dtype and quantisation.

        What an exporter writes is in one dtype; a checkpoint is in float32 and loaded in whichever.

        Raises:
            CapabilityError: the exporter cannot express it.
        """
        exported = self.format != "checkpoint"
        key = f"{name}-{dtype or self.dtype}-{quantize}" if exported else name
        if key not in self._models:
            self._models[key] = self._make(key, name, config, dtype or self.dtype, quantize)
        made = self._models[key]
        if isinstance(made, CapabilityError):
            raise made
        return made

    def _make(
        self, key: str, name: str, config: ModelConfig, dtype: Dtype, quantize: Quantization | None
    ) -> Model | CapabilityError:
        place = self.folder / key.replace(" ", "-").replace(",", "")
        checkpoint = save_random_model(config, self.seed, place / "checkpoint")
        label = f"model {name!r} of seed {self.seed}: {config!r}"
        if self.format == "checkpoint":
            return Model(label, config, checkpoint, checkpoint)
        try:
            exporter = self.subject.registry.exporter(self.format)
        except PluginError as error:
            unavailable(self.subject, f"nothing writes the format {self.format!r} that it serves: {error}")
        from fulmen_core.export.options import ExportOptions

        try:
            exporter.export(checkpoint, place / "artefact", ExportOptions(dtype, quantize))
        except CapabilityError as error:
            return error
        return Model(label, config, checkpoint, place / "artefact")

    # -- runners -------------------------------------------------------------------------------------------------------

    @contextmanager
    def runner(self, model: Model, limits: EngineLimits | None = None, **options: Any) -> Iterator[Runner]:
        """Load a runner over `model`, in the most precise dtype unless `options` say otherwise; close it at the end."""
        runner = self.load(model, limits, **options)
        try:
            yield runner
        finally:
            runner.close()

    def load(self, model: Model, limits: EngineLimits | None = None, **options: Any) -> Runner:
        """Load a runner that the caller closes."""
        return self.backend.load_runner(model.served, limits or LIMITS, **{"dtype": self.dtype, **options})

    @contextmanager
    def player(
        self, model: Model, limits: EngineLimits | None = None, *, salt: int = 0, **options: Any
    ) -> Iterator[Player]:
        """Load a runner and play on it, in random numbers of its own."""
        with self.runner(model, limits, **options) as runner:
            yield Player(runner, self.generator(salt))


#: What the engine asks for at most in most claims.
LIMITS = EngineLimits(max_sequences=4, max_context=CONTEXT, max_step_tokens=96)

Loader = Callable[..., Runner]
