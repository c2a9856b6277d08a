"""`bench/products.py` measures products end to end and prints what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fulmen_backend_cpu.native_library import load_library
from fulmen_core.native_build import NativeUnavailable

BENCH = Path(__file__).parents[1] / "bench" / "products.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCH), *arguments], capture_output=True, text=True, check=False)


def test_small_products_are_measured_and_printed_as_json() -> None:
    try:
        load_library()
    except NativeUnavailable as error:
        pytest.skip(str(error))
    done = run("--inputs", "70", "--outputs", "33", "--json")
    assert done.returncode == 0, done.stderr
    products = json.loads(done.stdout)["products"]
    assert [one["rows"] for one in products] == [1, 2, 4, 8, 16, 32, 64, 256]
    assert all(value > 0 for one in products for value in one.values())


def test_a_size_that_is_none_is_one_sentence() -> None:
    done = run("--outputs", "0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "products.py: error: argument --outputs: '0' is no whole number from 1 on"
