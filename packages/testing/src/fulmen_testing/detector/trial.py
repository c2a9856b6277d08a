"""What the claims about a detector stand on: the detector, its description, and a guard that has it alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.descriptors import DetectorInfo
from fulmen_safety.detector import Detector
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.policy import make_policy
from fulmen_safety.taxonomy import taxonomy
from fulmen_testing.claims import PluginClaims, once
from fulmen_testing.subject import Kind, Subject
from fulmen_testing.texts import PIECES, texts

#: Short texts that every claim is tried on.
TEXTS = 100

#: What a policy may do in each phase about what is found.
ACTIONS = {"corpus": "redact", "reward": 0.5, "input": "rewrite", "output": "redact"}

GuardOf = Callable[..., RaiseGuard]


class OneDetector:
    """Where a guard finds the detector: a `fulmen_safety.panel.DetectorSource` of one."""

    def __init__(self, info: DetectorInfo, make: Callable[[], Any]) -> None:
        self._info, self._make = info, make

    def detector_info(self, name: str) -> DetectorInfo:
        """Return the description of the only detector."""
        assert name == self._info.name
        return self._info

    def detector(self, name: str, settings: object) -> Any:
        """Make the only detector."""
        assert name == self._info.name
        del settings
        return self._make()


class DetectorTrial(PluginClaims):
    """Fixtures of every class of claims about a detector."""

    kind: Kind = "detector"

    @pytest.fixture
    def info(self, subject: Subject) -> DetectorInfo:
        """What the plugin says of the detector."""
        return subject.registry.detector_info(subject.name)

    @pytest.fixture
    def detector(self, request: pytest.FixtureRequest, subject: Subject) -> Detector:
        """The detector, under the settings of the subject; one for all claims."""
        made: Detector = once(request, "detector", lambda: subject.registry.detector(subject.name, subject.settings))
        assert isinstance(made, Detector), "what its loader makes has no `name` and `scan`: see fulmen_safety.detector"
        return made

    @pytest.fixture
    def seen(self, subject: Subject, seed: int) -> list[str]:
        """Texts of every kind, and the examples in which something must be found."""
        return [*texts(seed, TEXTS, subject.examples), *PIECES, *subject.examples]

    @pytest.fixture
    def guard_of(self, info: DetectorInfo, subject: Subject) -> GuardOf:
        """Makes a guard with this detector alone, acting as told; `make` may put another object in its place."""

        def make_guard(
            on_error: str = "closed", make: Callable[[], Any] | None = None, **actions: object
        ) -> RaiseGuard:
            default = {"threshold": 0.0, "message": {"en": "blocked"}, **ACTIONS, **actions}
            table = {
                "name": "conformance",
                "version": "1",
                "taxonomy": taxonomy().version,
                "failure": {"en": "could not be checked"},
                "detectors": [{"name": info.name, "on_error": on_error, "settings": dict(subject.settings)}],
                "categories": {"default": default},
            }
            policy = make_policy(table, where="the kit's policy", folder=Path.cwd())
            source = OneDetector(info, make or (lambda: subject.registry.detector(subject.name, subject.settings)))
            return RaiseGuard(policy, source)

        return make_guard
