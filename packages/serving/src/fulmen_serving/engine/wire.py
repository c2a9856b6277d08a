"""The messages between the engine's process and a model's, over a socket pair that nobody else has.

They are pickled: both ends are the same program, the child was started by the parent, and neither listens anywhere.
Token events, of which each step brings one a sequence, travel as plain tuples: others would take four times as long.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from fulmen_core.runner import EngineLimits
from fulmen_serving.engine.core import TokenEvent
from fulmen_serving.engine.model_plan import ModelPlan
from fulmen_serving.engine.report import StepReport

_REPORT = tuple(one.name for one in fields(StepReport) if one.name != "events")
_OTHERS = attrgetter(*_REPORT)


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to a model process: what to load, and the level of what it logs."""

    plan: ModelPlan
    log_level: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A model process has loaded its model.

    Attributes:
        backend: which one serves it.
        limits: of the runner.
        embeds: whether the runner gives hidden states.
        seconds: what loading took, the imports of the backend included.
    """

    backend: str
    limits: EngineLimits
    embeds: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """A model process cannot load its model, and ends."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Fault:
    """A model process met a defect of the engine, and ends."""

    message: str


Message = StepReport | Ready | LoadFailed | Fault


def encode_report(report: StepReport) -> bytes:
    """The bytes of what a step brought."""
    return pickle.dumps((_OTHERS(report), [tuple(event) for event in report.events]), pickle.HIGHEST_PROTOCOL)


def encode(message: object) -> bytes:
    """The bytes of any other message, either way."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def decode(data: bytes) -> Any:
    """The message in `data`."""
    message = pickle.loads(data)  # noqa: S301 - from our own child or parent, over a socket without a name
    if not isinstance(message, tuple):
        return message
    others, events = message
    return StepReport(**dict(zip(_REPORT, others, strict=True)), events=[TokenEvent(*event) for event in events])
