"""What is compiled: the kernels of serving, and those of a training step."""

from __future__ import annotations

from pathlib import Path

from fulmen_core.native_build import Native

_HERE = Path(__file__).parent
SERVING = Native("the CPU kernels", _HERE / "native")
#: Apart from serving's, as they share torch's OpenMP threads: a second pool would fight it.
TRAINING = Native("the CPU's training kernels", _HERE / "native_training", headers=SERVING.sources, flags=("-fopenmp",))
