"""The backend against its contract: every claim of the conformance kit."""

from __future__ import annotations

import pytest
from fulmen_testing.backend import BackendConformance, Subject


class TestAcme(BackendConformance):
    """All claims. One that does not hold yet is overridden with ``@pytest.mark.xfail(reason="...")``."""

    @pytest.fixture
    def subject(self) -> Subject:
        """What is tested: the backend, taken from its plugin module."""
        return Subject.of_module("acme", "acme_fulmen_backend.plugin")
