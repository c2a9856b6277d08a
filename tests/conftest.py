"""What the cross-distribution tests share: one nano model with its tokenizer, its artefacts, and policies."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch

COMBO = Path(__file__).parent / "combo"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one nano model as each backend reads it: `cpu` a checkpoint, the others artefacts."""
    folder = tmp_path_factory.mktemp("models") / "models"
    subprocess.run([sys.executable, str(COMBO / "make_models.py"), str(folder)], check=True)
    return folder


@pytest.fixture
def policy_of(tmp_path: Path) -> Callable[[Collection[str]], Path]:
    """Writes the default policy with only the detectors of the named plugins."""
    policy_with = runpy.run_path(str(COMBO / "policies.py"))["policy_with"]

    def write(plugins: Collection[str]) -> Path:
        path = tmp_path / f"policy-{'-'.join(sorted(plugins)) or 'none'}.toml"
        path.write_text(policy_with(plugins), encoding="utf-8")
        return path

    return write
