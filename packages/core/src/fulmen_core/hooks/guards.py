"""Hooks of the group ``fulmen.raise.v1``: guards (the whole of RAISE) and the detectors a guard is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fulmen_core.hooks import hookspec

if TYPE_CHECKING:
    from fulmen_core.descriptors import DetectorInfo, GuardInfo


@hookspec
def fulmen_guards() -> Iterable[GuardInfo]:  # type: ignore[empty-body]
    """Describe whole guards: objects that judge documents, rewards, inputs and output streams.

    Called by: the trainer (RAISE-1, RAISE-2) and the server (RAISE-3, RAISE-4) when a policy is configured.
    `load` gives a callable ``make(policy: Path | None, registry: Registry) -> fulmen_core.guard.Guard``.
    May go wrong: a guard that cannot be loaded stops the server from starting; nothing is served unguarded by accident.
    """


@hookspec
def fulmen_raise_detectors() -> Iterable[DetectorInfo]:  # type: ignore[empty-body]
    """Describe detectors that a RAISE policy can name.

    Called by: the RAISE engine when it loads a policy; only detectors that the policy names are loaded, in the policy's
    order. `load` gives a class or factory whose call with the detector's settings table makes a
    `fulmen_safety.detector.Detector`.
    May go wrong: a named detector that fails to load is an error; one that raises or is late at run time fails closed
    by default.
    """
