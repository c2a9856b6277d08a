"""What the claims about a backend stand on: the fixtures that make it, or skip where it is not to be had."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fulmen_testing.backend.bench import Bench, Model
from fulmen_testing.claims import PluginClaims, once, unavailable
from fulmen_testing.subject import Kind, Subject


class BackendTrial(PluginClaims):
    """Fixtures of every class of claims about a backend."""

    kind: Kind = "backend"

    @pytest.fixture
    def bench(
        self, request: pytest.FixtureRequest, subject: Subject, seed: int, tmp_path_factory: pytest.TempPathFactory
    ) -> Bench:
        """The backend, and models for it. Skips if its probe says that it cannot be used here."""
        subject.entry("backend")  # a plugin that is broken or not there is no reason to skip
        (record,) = [one for one in subject.registry.backend_records() if one.name == subject.name]
        if record.state == "unavailable":
            unavailable(subject, record.reason)

        def make() -> Bench:
            backend = subject.registry.backend(subject.name)
            return Bench(subject, tmp_path_factory.mktemp(subject.name), seed, backend)

        return once(request, "bench", make)

    @pytest.fixture
    def serving(self, bench: Bench) -> Bench:
        """The bench of a backend that serves. Skips for others."""
        if not bench.capabilities.serve:
            pytest.skip("it does not declare that it serves")
        return bench

    @pytest.fixture
    def model(self, serving: Bench) -> Model:
        """Yi-Lightning's plan at toy size, in the format that the backend serves."""
        return serving.lightning()

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        """Small products are less steady, and slower, on several threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)
