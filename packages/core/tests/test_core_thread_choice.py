"""A run keeps the number of threads that it began with; what the user says wins; `fulmen doctor` says why."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.cli import context, main
from fulmen_core.cli.global_options import GlobalOptions
from fulmen_core.cli.thread_choice import FILE, settle_threads
from fulmen_core.errors import CorruptArtefact

BACKEND = """
from fulmen_core.descriptors import *
from fulmen_core.hooks import hookimpl

asked = []

class Backend:
    name = "acme"

def run_on(threads):
    if BROKEN:
        raise RuntimeError("the sensor is gone")
    asked.append(threads)
    return {"threads": threads or 5, "reason": "it is a Wednesday", "products_per_s": {"1": 10, "5": 40}}

@hookimpl
def fulmen_backends():
    return [BackendInfo("acme", "", lambda: Availability(True), Backend, threads="acme_plugin:run_on")]
"""


@pytest.fixture
def acme(site: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a backend that chooses five threads, or fails to."""
    monkeypatch.setenv("PYTHONPATH", str(site.folder))

    def install(broken: bool = False) -> None:
        source = BACKEND.replace("BROKEN", str(broken))
        site.install("acme-dist", {"fulmen.backends.v1": {"acme": "acme_plugin"}}, {"acme_plugin": source})

    return install


def was_asked() -> list[int | None]:
    """What the backend was asked for, in this process."""
    return list(sys.modules["acme_plugin"].asked) if "acme_plugin" in sys.modules else []


def test_a_run_begins_with_the_backends_choice_and_resumes_with_it(acme: Any, tmp_path: Path) -> None:
    acme()
    run = tmp_path / "run"
    settle_threads(run, "acme")
    settle_threads(run, "acme")
    assert was_asked() == [None, 5]
    assert json.loads((run / FILE).read_text())["threads"] == 5


def test_threads_that_were_asked_for_are_not_chosen_again(acme: Any, tmp_path: Path) -> None:
    acme()
    context.begin(GlobalOptions(threads=2))
    settle_threads(tmp_path / "run", "acme")
    assert was_asked() == []
    assert not (tmp_path / "run" / FILE).exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"threads": 0}', '{"threads": "two"}', '{"threads": true}'])
def test_a_damaged_record_is_refused_by_name(acme: Any, tmp_path: Path, text: str) -> None:
    acme()
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CorruptArtefact, match=r"threads\.json"):
        settle_threads(tmp_path, "acme")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (False, ["backend acme: 5 threads: it is a Wednesday", "1: 10 (25%), 5: 40 (100%)"]),
        (True, ["RuntimeError: the sensor is gone"]),
    ],
)
def test_the_doctor_explains_the_choice(
    acme: Any, capsys: pytest.CaptureFixture[str], broken: bool, words: list[str]
) -> None:
    acme(broken)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in words:
        assert word in text


def test_the_doctor_takes_the_number_asked_for(acme: Any, capsys: pytest.CaptureFixture[str]) -> None:
    acme()
    assert main(["--threads", "3", "doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["threads"]["acme"]["threads"] == 3
