"""The same weights and tokenizer as a GGUF file, which llama.cpp's server reads: BF16, or Q8_0 by its own program."""

from __future__ import annotations

import subprocess
from pathlib import Path

_WRITER = Path(__file__).parent.parent / "workers" / "afmoe_gguf.py"


def served_gguf(served: Path, weights: str, program: Path) -> Path:
    """Make the file of `served` in `weights` beside it. Kept if it is there.

    Args:
        served: the folder that every server reads.
        weights: "bf16" or "q8_0".
        program: the server; beside it are ``llama-quantize`` and an interpreter that has llama.cpp's `gguf`.

    Raises:
        subprocess.CalledProcessError, OSError: it cannot be written.
    """
    full = served.parent / "llama-server-bf16.gguf"
    if not full.exists():
        _run(str(program.with_name("python")), str(_WRITER), str(served), str(full))
    if weights == "bf16":
        return full
    small = served.parent / f"llama-server-{weights}.gguf"
    if not small.exists():
        unfinished = small.with_name(small.name + ".unfinished")
        _run(str(program.with_name("llama-quantize")), str(full), str(unfinished), weights, "2")
        unfinished.rename(small)
    return small


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
