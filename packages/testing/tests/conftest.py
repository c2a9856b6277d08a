"""What the tests of the kit share: the skeleton backend and detector, sound, and with one fault put into each."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fulmen_core.skeletons.writing import Kind, Skeleton
from fulmen_testing.subject import Subject

MakeSubject = Callable[..., Subject]


@pytest.fixture
def skeleton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSubject]:
    """Writes the skeleton of a kind, changes one passage of one of its files, and makes a subject of it."""
    made: list[str] = []

    def make(kind: Kind, file: str = "", old: str = "", new: str = "") -> Subject:
        plan = Skeleton(kind, "acme")
        plan.write(tmp_path / kind)
        if file:
            path = tmp_path / kind / "src" / plan.package / file
            source = path.read_text(encoding="utf-8")
            assert source.count(old) == 1, f"{file} has {source.count(old)} times {old!r}"
            path.write_text(source.replace(old, new), encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path / kind / "src")
        importlib.invalidate_caches()
        _forget(plan.package)  # the example of the same name, if another test imported it
        made.append(plan.package)
        return Subject.of_module("acme", f"{plan.package}.plugin", examples=("see TICK-0042",))

    yield make
    for package in made:
        _forget(package)


def _forget(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
