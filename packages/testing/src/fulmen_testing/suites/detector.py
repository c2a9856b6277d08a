"""`fulmen conform detector NAME`: the claims about the detector that the command names."""

from __future__ import annotations

import pytest

from fulmen_testing.detector import DetectorConformance
from fulmen_testing.subject import Subject


class TestDetector(DetectorConformance):
    """The detector of this run."""

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        """What the run was started for."""
        chosen: Subject = request.config.fulmen_subject  # type: ignore[attr-defined]
        return chosen
