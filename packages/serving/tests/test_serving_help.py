"""The claim that asking for help is cheap: nothing that serves is imported, however many options there are."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "numpy",
    "fastapi",
    "starlette",
    "uvicorn",
    "httpx",
    "sqlalchemy",
    "opentelemetry",
    "prometheus_client",
)


@pytest.mark.parametrize("verb", ["serve", "keys", "usage", "chat", "bench"])
def test_help_of_a_verb_imports_nothing_that_serves(verb):
    command = [sys.executable, "-X", "importtime", "-m", "fulmen_core", verb, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"usage: fulmen {verb}" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert [name for name in imported if name.startswith("fulmen_serving.cli.")]
    assert sorted(name for name in imported if name.startswith(HEAVY)) == []
