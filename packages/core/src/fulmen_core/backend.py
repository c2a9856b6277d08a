"""What a backend is: several small things, each optional and declared as data in `Capabilities`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fulmen_core.runner import EngineLimits, Runner

if TYPE_CHECKING:
    from torch import nn

    from fulmen_core.export.options import ExportOptions

Dtype = Literal["float32", "bfloat16", "float16"]
Quantization = Literal["int8", "int4", "fp8"]  # of weights; "fp8" is float8_e4m3fn with a scale for each row
KVDtype = Literal["float32", "bfloat16", "float16", "int8"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do. Empty means: it cannot; nothing unlisted is attempted."""

    train: bool = False
    serve: bool = False
    formats: tuple[str, ...] = ()  # artefact formats `load_runner` accepts: "checkpoint", "onnx", ...
    train_dtypes: tuple[Dtype, ...] = ()
    serve_dtypes: tuple[Dtype, ...] = ()
    quantizations: tuple[Quantization, ...] = ()  # of weights, by `load_runner`
    train_quantizations: tuple[Quantization, ...] = ()  # of experts' products, by `prepare_training`
    kv_dtypes: tuple[KVDtype, ...] = ()  # that may be chosen apart from the serving dtype
    embed: bool = False  # its runners give hidden states: `Runner.hidden`
    adapters: bool = False  # its runners serve LoRA adapters: `Runner.load_adapter`
    options: tuple[str, ...] = ()  # further arguments of its `load_runner`, strings: `fulmen_core.backend_options`
    max_devices: int = 1


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """How a training stage wants the model to be run. `"auto"` lets the backend choose, and it says what it chose."""

    dtype: Dtype | Literal["auto"] = "auto"
    compile: bool = False
    recompute: Literal["none", "experts", "blocks"] = "none"
    experts: Literal["auto", "grouped", "dense", "fp8"] = "auto"  # "fp8": grouped products of 8-bit floats


class TrainProgram(Protocol):
    """A model prepared for training on a backend."""

    model: nn.Module  # call this instead of the module that was prepared; parameters are shared
    choices: Mapping[str, str]  # what "auto" became, for the manifest

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision context for forward passes."""
        ...


class Backend(Protocol):
    """A hardware backend. Methods that `capabilities` does not list raise `CapabilityError`."""

    name: str

    def capabilities(self) -> Capabilities:
        """Return what it can do here."""
        ...

    def prepare_training(self, model: nn.Module, plan: TrainPlan) -> TrainProgram:
        """Prepare a model for training under `plan`; the parameters stay the model's own."""
        ...

    def load_runner(
        self,
        model: Path,
        limits: EngineLimits,
        dtype: Dtype = "float32",
        *,
        quantize: Quantization | None = None,
        kv_dtype: KVDtype | None = None,
    ) -> Runner:
        """Load a model directory (or exported artefact directory) for serving.

        Args:
            model: the directory.
            limits: what the engine will ask for at most.
            dtype: of weights and products.
            quantize: how weights are quantised on loading, one of `Capabilities.quantizations`; None: not.
            kv_dtype: of keys and values, one of `Capabilities.kv_dtypes`; None: that of `dtype`.

        Raises:
            CapabilityError: it cannot serve so.
        """
        ...


class Exporter(Protocol):
    """Writes a deployable artefact from a model directory."""

    name: str

    def export(self, model: Path, out: Path, options: ExportOptions) -> Mapping[str, Any]:
        """Write the artefact whole or not at all into `out`.

        Returns: its manifest: files, hashes, versions, inputs, outputs.

        Raises:
            CapabilityError: it cannot honour an option, or not express the model.
        """
        ...

    def check(self, out: Path, model: Path | None = None) -> Mapping[str, Any]:
        """Compare the artefact with the answers of its checkpoint that it holds, or with fresh ones of `model`.

        Returns: ``max_abs_diff`` of logits, ``greedy_equal``, what was compared; see `fulmen_core.export.comparison`.

        Raises:
            UserError: there is no `model` and the artefact holds no answers.
        """
        ...
