"""What the cross-distribution tests share: one nano model with its tokenizer, its ONNX artefact, and policies."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Collection
from importlib.resources import files
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one nano model as each backend reads it: `cpu` a checkpoint, `onnxruntime` an artefact."""
    folder = tmp_path_factory.mktemp("models") / "models"
    script = Path(__file__).parent / "combo" / "make_models.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True)
    return folder


@pytest.fixture
def policy_of(tmp_path: Path) -> Callable[[Collection[str]], Path]:
    """Writes the default policy with only the named detectors."""
    default = (files("fulmen_safety") / "data/policies/default.toml").read_text(encoding="utf-8")

    def write(detectors: Collection[str]) -> Path:
        path = tmp_path / f"policy-{'-'.join(sorted(detectors)) or 'none'}.toml"
        path.write_text(only_detectors(default, detectors), encoding="utf-8")
        return path

    return write


def only_detectors(policy: str, detectors: Collection[str]) -> str:
    """A policy's text without the tables of other detectors."""

    def keep(table: re.Match[str]) -> str:
        named = re.search(r'^name = "(.+)"', table[0], re.MULTILINE)
        return table[0] if named and named[1] in detectors else ""

    return re.sub(r"\[\[detectors\]\]\n(?:(?!\[).*\n)*", keep, policy)
