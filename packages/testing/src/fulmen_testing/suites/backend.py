"""`fulmen conform backend NAME`: the claims about the backend that the command names."""

from __future__ import annotations

import pytest

from fulmen_testing.backend import BackendConformance
from fulmen_testing.subject import Subject


class TestBackend(BackendConformance):
    """The backend of this run."""

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        """What the run was started for."""
        chosen: Subject = request.config.fulmen_subject  # type: ignore[attr-defined]
        return chosen
