"""What the README shows works as it stands, as far as there is a GPU; its example is what the backend takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from fulmen_backend_tensorrt.devices import find_devices
from fulmen_testing.exporter.exported import Exported

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_example_runs_or_says_that_there_is_no_gpu(lightning: Exported) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    program = example.replace("ARTEFACT", lightning.artefact.name) + "print([len(answer) for answer in answers])"
    order = [sys.executable, "-c", program]
    done = subprocess.run(order, cwd=lightning.artefact.parent, capture_output=True, text=True, check=False)
    found = find_devices()
    if found.devices:
        assert done.stdout == "[16, 16]\n", done.stderr
    else:
        assert found.reason in done.stderr.splitlines()[-1]
