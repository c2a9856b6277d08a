"""Hooks of the group ``fulmen.evals.v1``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fulmen_core.hooks import hookspec

if TYPE_CHECKING:
    from fulmen_core.descriptors import BenchmarkInfo


@hookspec
def fulmen_benchmarks() -> Iterable[BenchmarkInfo]:  # type: ignore[empty-body]
    """Describe benchmarks: questions with a way to score answers.

    Called by: `Registry.benchmark(name, settings)`, for whoever evaluates a model. `load` gives
    ``make(settings) -> fulmen_core.benchmark.Benchmark``.
    May go wrong: a benchmark that cannot be made stops the evaluation that named it; one that scores outside of 0 to 1,
    or raises, has no result: a guess would be taken for a measurement.
    """
