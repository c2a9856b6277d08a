"""Engines on a GPU: they compute what their graphs compute on a CPU. Skips with the reason where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fulmen_backend_tensorrt.backend import TensorRTBackend
from fulmen_backend_tensorrt.devices import find_devices
from fulmen_backend_tensorrt.exporter import EngineExporter
from fulmen_backend_tensorrt.plugin import probe_export, probe_runtime
from fulmen_backend_tensorrt.products import PRODUCTS
from fulmen_backend_tensorrt.runner import EngineRunner
from fulmen_backend_tensorrt.twin_executor import TwinExecutor
from fulmen_core.errors import CapabilityError
from fulmen_core.export.verdict import fault
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.models import VOCABULARY, save_random_model

from .conftest import LIGHTNING, OPTIONS

pytestmark = pytest.mark.gpu

LIMITS = EngineLimits(max_sequences=6, max_context=160, max_step_tokens=64, threads=1)


@pytest.fixture(scope="module", params=list(PRODUCTS))
def artefact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for found in (probe_runtime(), probe_export(PRODUCTS[request.param])):
        if not found.ok:
            pytest.skip(found.reason)
    root = tmp_path_factory.mktemp("gpu")
    save_random_model(LIGHTNING, 0, root / "model")
    capability = find_devices().devices[0].compute_capability
    options = replace(OPTIONS, compute_capabilities=(capability,))
    try:
        EngineExporter(PRODUCTS[request.param]).export(root / "model", root / "artefact", options)
    except CapabilityError as error:
        pytest.skip(str(error))
    return root / "artefact"


@pytest.fixture
def engines(artefact: Path) -> Iterator[EngineRunner]:
    runner = TensorRTBackend().load_runner(artefact, LIMITS, "float16")
    assert isinstance(runner, EngineRunner)
    yield runner
    runner.close()


def test_the_check_runs_the_engines(artefact: Path) -> None:
    exporter = EngineExporter(PRODUCTS["tensorrt-rtx"])
    found = exporter.check(artefact)
    assert found["executed"].startswith("the engines on ")
    assert fault(found, {"dtype": "float16"}) == ""


def random_steps(random: np.random.Generator) -> Iterator[list[SequenceStep]]:
    lengths = [0] * LIMITS.max_sequences
    for _ in range(40):
        batch = []
        for slot in random.permutation(LIMITS.max_sequences).tolist():
            if lengths[slot] > 120:
                lengths[slot] = 0
            count = 1 if random.random() < 0.6 else int(random.integers(1, 30))
            if random.random() < 0.8:
                batch.append(SequenceStep(slot, lengths[slot], random.integers(0, VOCABULARY, count).tolist()))
                lengths[slot] += count
        if batch:
            yield batch


def test_engines_and_their_twins_agree_over_mixed_steps(artefact: Path, engines: EngineRunner) -> None:
    twins = EngineRunner(artefact, LIMITS, TwinExecutor)
    alike = []
    for batch in random_steps(np.random.default_rng()):
        found, expected = engines.step(batch), twins.step(batch)
        assert np.isfinite(found).all()
        alike += (found.argmax(1) == expected.argmax(1)).tolist()
    assert np.mean(alike) > 0.9  # half precision may choose other experts


def test_the_same_step_gives_the_same_bits_recorded_or_not(engines: EngineRunner) -> None:
    batch = [SequenceStep(slot, 0, [7 + slot]) for slot in range(4)]
    first, *others = (engines.step(batch) for _ in range(4))
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_a_copied_row_goes_on_as_its_source(engines: EngineRunner) -> None:
    engines.step([SequenceStep(1, 0, list(range(40)))])
    engines.copy_slot(1, 4, 40)
    there, here = engines.step([SequenceStep(1, 40, [5]), SequenceStep(4, 40, [5])])
    np.testing.assert_allclose(there, here, atol=1e-3)
