"""What the README shows works as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from fulmen_core.hooks import GROUPS
from fulmen_core.plugin_loader import DESCRIPTORS, hooks_of

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_example_of_a_run_prints_what_it_promises(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(EXAMPLES[0])
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "{'words': 8} False\n{'words': 8} True\n"


def test_the_example_of_a_plugin_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(EXAMPLES[1])
    order = [sys.executable, "-m", "fulmen_core", "--plugin", "mine.py", "greet", "you"]
    done = subprocess.run(order, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "hello you\n"


def test_the_table_of_groups_is_complete() -> None:
    for group in GROUPS:
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{group}`")]
        assert all(hook in row for hook in hooks_of(group) & DESCRIPTORS.keys())
