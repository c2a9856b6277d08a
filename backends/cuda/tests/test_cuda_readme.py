"""What the README shows works as it stands, on a GPU where there is one and on CPU tensors where not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("torch.Size([2, 64, ")
    assert "'dtype': 'float32'" in done.stdout
