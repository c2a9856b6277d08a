"""The engines that can be measured, in which precisions, and where each is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine as the benchmark knows it.

    `package` is what its environment must be able to find; `precisions` name the weights it runs here, first the
    like-for-like one. `chunk` is the number of prompt tokens of one step at which it reads prompts fastest.
    """

    name: str
    package: str
    precisions: tuple[str, ...]
    chunk: int


ENGINES = {
    kind.name: kind
    for kind in (
        EngineKind("fulmen", "fulmen_backend_cpu", ("bf16", "int8"), 512),
        EngineKind("vllm", "vllm", ("bf16",), 2048),
        EngineKind("openvino", "openvino_genai", ("bf16", "int8"), 2048),
        EngineKind("llama", "llama_cpp", ("bf16", "q8_0"), 2048),
        EngineKind("transformers", "transformers", ("bf16",), 2048),
    )
}


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine in one precision, in the environment of `python`."""

    kind: EngineKind
    precision: str
    python: Path

    @property
    def label(self) -> str:
        """``engine-precision``, as tables and JSON name it."""
        return f"{self.kind.name}-{self.precision}"


def find(peers: Path, pythons: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """Where each engine is installed, and why the others are left out.

    Looked for in `pythons` (by engine), in ``peers/ENGINE/bin/python`` as `bench/peers/install.py` makes it, and in the
    interpreter that runs now. Fulmen is looked for in the last alone, unless `pythons` names another.
    """
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name, kind in ENGINES.items():
        own = peers / name / "bin" / "python"
        candidates = [pythons[name]] if name in pythons else [*([own] if own.exists() else []), Path(sys.executable)]
        for python in candidates:
            if _has(python, kind.package):
                found[name] = python
                break
        else:
            remedy = "" if name == "fulmen" else f"; `python bench/peers/install.py {name} --into {peers}` installs it"
            missing[name] = f"{kind.package} is in none of {', '.join(map(str, candidates))}{remedy}"
    return found, missing


def _has(python: Path, package: str) -> bool:
    """Whether `package` can be found by `python`, without importing it."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    try:
        return subprocess.run([str(python), "-P", "-c", code], check=False, capture_output=True).returncode == 0
    except OSError:
        return False
