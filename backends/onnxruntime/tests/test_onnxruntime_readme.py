"""What the README shows works as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from fulmen_testing.exporter.exported import Exported

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_example_runs_in_the_artefacts_parent(lightning: Exported) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    program = example.replace("ARTEFACT", lightning.artefact.name) + "print([len(answer) for answer in answers])"
    order = [sys.executable, "-c", program]
    done = subprocess.run(order, cwd=lightning.artefact.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "[16, 16]\n"
