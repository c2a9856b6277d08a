"""What the tests of the CUDA backend share: one thread, and the GPU where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from fulmen_backend_cuda.plugin import probe


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gpu() -> torch.device:
    """The first GPU. Without one the test is skipped with the probe's reason, or fails if FULMEN_REQUIRE has "cuda"."""
    found = probe()
    if not found.ok:
        if "cuda" in os.environ.get("FULMEN_REQUIRE", "").split(","):
            pytest.fail(found.reason)
        pytest.skip(found.reason)
    return torch.device("cuda")
