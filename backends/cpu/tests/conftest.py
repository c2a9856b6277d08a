"""What the tests of the CPU backend share: both runners, and one thread, as small products are less steady on two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fulmen_backend_cpu.native_library import load_library
from fulmen_backend_cpu.native_runner import NativeRunner
from fulmen_backend_cpu.runner import CpuRunner
from fulmen_core.native_build import NativeUnavailable

from .mixed_steps import AnyRunner


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[CpuRunner, NativeRunner], ids=["torch", "native"])
def runner_class(request: pytest.FixtureRequest) -> type[AnyRunner]:
    """Each runner in turn."""
    if request.param is NativeRunner:
        request.getfixturevalue("native")
    chosen: type[AnyRunner] = request.param
    return chosen


@pytest.fixture
def native() -> None:
    """The compiled kernels, without which the test is skipped."""
    try:
        load_library()
    except NativeUnavailable as error:
        pytest.skip(str(error))
