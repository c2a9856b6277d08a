from __future__ import annotations

from pathlib import Path

import pytest

from fulmen_core.cli import main

TINY = Path(__file__).parent / "tiny.toml"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A whole road at toy size, and the exit code of the command that took it."""
    run = tmp_path_factory.mktemp("demo") / "run"
    return run, main(["--threads", "1", "demo", "--recipe", str(TINY), "--run", str(run)])
